"""A watched folder as runs of a real Prefect server see it."""

from pathlib import Path

import pytest
from PIL import Image

from flows.watch import watch
from safelight.errors import ContractMismatchError, ForbiddenPathError
from safelight.settings import reload_settings
from tests.flows.conftest import server  # noqa: F401


def drop(folder: Path, name: str, colour: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (colour, 20, 90)).save(path)
    return path


@pytest.mark.usefixtures("server")
def test_new_files_are_enlarged_once_and_moved(volume: Path, monkeypatch: pytest.MonkeyPatch):
    inbox = volume / "uploads" / "inbox"
    monkeypatch.setenv("SAFELIGHT_WATCH_ROOTS", str(inbox))
    reload_settings()
    drop(inbox, "a.png", 10)
    drop(inbox, "sub/b.png", 20)
    drop(inbox, "copy.png", 10)
    (inbox / "bad.png").write_bytes(b"bad")
    called = {
        "folder": "uploads/inbox",
        "flow": "enhance",
        "to": "exports/large",
        "parameters": {"quality_preset": "low"},
        "original": "move",
        "settle_seconds": 0.2,
        "where": "here",
    }
    result = watch(**called)
    assert result.data["watch"] == {"done": 2, "refused": 1, "tried": 0}
    large = volume / "exports" / "large"
    with Image.open(large / "sub" / "b.png") as made:
        assert made.size == (64, 64)
    assert (large / "refused" / "bad.png.txt").is_file()
    assert not [path for path in inbox.rglob("*") if path.is_file()]
    drop(inbox, "again.png", 20)
    drop(inbox, "new.png", 30)
    result = watch(**called)
    assert result.data["watch"]["done"] == 1
    assert sorted(path.name for path in large.glob("*.png")) == ["a.png", "new.png"]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"to": "outputs"}, ForbiddenPathError),
        ({"folder": "/etc"}, ForbiddenPathError),
        ({"original": "delete"}, ForbiddenPathError),
        ({"folder": "s3://other/x"}, ForbiddenPathError),
        ({"names": "{nothing}"}, ContractMismatchError),
        ({"flow": "generate"}, ContractMismatchError),
        ({"flow": "watch"}, ContractMismatchError),
        ({"parameters": {"none": 1}}, ContractMismatchError),
    ],
)
def test_what_is_wrong_is_refused_at_once(
    volume: Path, changed: dict[str, object], error: type[Exception]
):
    drop(volume / "uploads" / "inbox", "a.png", 1)
    called = {"folder": "uploads/inbox", "flow": "enhance", "to": "exports/x", **changed}
    with pytest.raises(error):
        watch.fn(**called)
    assert not (volume / "exports").exists()
