"""A batch's results beside the store, under the names of its template."""

from pathlib import Path

import pytest
from PIL import Image

from flows.batch import batch
from safelight.errors import ContractMismatchError
from safelight.settings import reload_settings
from tests.flows.conftest import server  # noqa: F401


def look(image: Path, colour: str) -> dict[str, object]:
    stage = {"stage_type": "grade", "name": "look", "parameters": {"colour": colour}}
    return {"call_input": {"image": str(image)}, "stages": [stage]}


@pytest.mark.usefixtures("server")
def test_results_are_copied_once_and_nothing_is_overwritten(volume: Path):
    image = volume / "uploads" / "Küche.png"
    image.parent.mkdir(parents=True)
    Image.effect_noise((32, 32), 90).convert("RGB").save(image)
    requests = [look(image, "warm"), look(image, "cool"), look(volume / "none.png", "cool")]
    exports = volume / "exports"
    (exports / "spring").mkdir(parents=True)
    (exports / "spring" / "001.PNG").write_bytes(b"of somebody")
    called = {"requests": requests, "key": "spring", "allow_failures": True}
    for _ in range(2):
        result = batch(flow="pipeline", export="{batch}/{number:03}", **called)
        places = [str(exports / "spring" / name) for name in ("001-2.png", "002.png")]
        assert result.data["exports"] == places
    assert (exports / "spring" / "001.PNG").read_bytes() == b"of somebody"
    assert sorted(path.name for path in exports.rglob("*")) == [
        "001-2.png",
        "001.PNG",
        "002.png",
        "spring",
    ]
    with Image.open(exports / "spring" / "002.png") as made:
        assert made.size == (32, 32)


@pytest.mark.usefixtures("server")
def test_the_template_of_the_settings_is_that_of_every_batch(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    image = volume / "uploads" / "a.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(image)
    monkeypatch.setenv("SAFELIGHT_EXPORT_NAMES", "{date:%Y}/{preset}")
    reload_settings()
    result = batch(flow="pipeline", requests=[look(image, "warm")])
    (place,) = result.data["exports"]
    assert Path(place).parent.parent == volume / "exports"
    assert Path(place).name == "pipeline.png"


@pytest.mark.parametrize("by", ["parameter", "setting"])
def test_a_wrong_template_is_refused_before_anything_runs(
    volume: Path, monkeypatch: pytest.MonkeyPatch, by: str
):
    given = {"export": "{prmpt}"} if by == "parameter" else {}
    if by == "setting":
        monkeypatch.setenv("SAFELIGHT_EXPORT_NAMES", "{prmpt}")
        reload_settings()
    where = "batch: export" if by == "parameter" else "SAFELIGHT_EXPORT_NAMES"
    with pytest.raises(ContractMismatchError, match=rf"{where}: .*did you mean {{prompt}}"):
        batch.fn(flow="generate", requests=[{"prompt": "a"}], **given)
    assert not (volume / "outputs" / "batches").exists()
    assert not (volume / "exports").exists()
