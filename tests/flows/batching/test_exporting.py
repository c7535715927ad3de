"""A batch's results beside the store, under the names of its template."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL

from flows.batch import batch
from safelight.errors import ContractMismatchError
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.store.servers import S3Server

CHECKOUT = Path(__file__).resolve().parents[3]
Listing = Callable[[str], list[str]]


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


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.soak)])
def listing(
    request: pytest.FixtureRequest, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Listing]:
    """What lies below a folder of the volume, or below a prefix of a bucket that is its store."""
    if request.param == "folder":
        yield lambda folder: [
            path.relative_to(volume / folder).as_posix()
            for path in (volume / folder).rglob("*")
            if path.is_file() and ".unfinished" not in path.parts
        ]
        return
    moto: S3Server = request.getfixturevalue("moto")
    prefix = f"exports/{uuid4()}"
    for name, value in moto.settings(prefix).items():
        monkeypatch.setenv(name, value)
    reload_settings()
    current_store.cache_clear()

    def listed(folder: str) -> list[str]:
        start = f"{prefix}/{folder}/"
        found = moto.client().list_objects_v2(Bucket=moto.bucket, Prefix=start).get("Contents", [])
        return [each["Key"].removeprefix(start) for each in found]

    yield listed
    current_store.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_copies_are_there_as_requests_end_and_stay_when_the_batch_is_killed(
    volume: Path, listing: Listing
):
    image = volume / "uploads" / "a.png"
    image.parent.mkdir(parents=True)
    Image.effect_noise((32, 32), 90).convert("RGB").save(image)
    colours = ("warm", "cool", "none") * 4  # four requests each make the same picture
    called = {
        "flow": "pipeline",
        "requests": [look(image, colour) for colour in colours],
        "key": "killed",
        "export": "{batch}/{preset}",
        "where": "here",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", f"from flows.batch import batch\nbatch(**{called!r})"],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(before := listing("exports")) < 4:
        assert process.poll() is None, "the batch ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert listing("outputs/batches") == []  # it had not ended
    assert 4 <= len(before) < len(colours)
    result = batch(**called)
    after = listing("exports")
    assert set(before) <= set(after)
    assert sorted(after) == sorted(
        ["killed/pipeline.png", *(f"killed/pipeline-{n}.png" for n in range(2, 13))]
    )
    places = [str(place) for place in result.data["exports"]]
    assert {place[place.rindex("killed/") :] for place in places} == set(after)
