"""Which ComfyUIs run here: a small file for each, that whoever asks about them reads."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safelight.engines.comfy.launching import folder
from safelight.private import make_folder
from safelight.process_identity import here, lives, started
from safelight.store.disk import half_made

STANDING = "standing"
"""Name of the one that a person starts: workers use it instead of one of their own."""


@dataclass(frozen=True)
class Running:
    """A ComfyUI that was started here."""

    pid: int
    url: str
    name: str
    """Of its log."""


def remember(pid: int, url: str, name: str) -> None:
    """Say that it runs."""
    make_folder(folder())
    told = {"pid": pid, "url": url, "name": name, "started": started(pid), "place": here().tag}
    with half_made(folder()) as half:
        half.write_text(json.dumps(told))
        os.replace(half, folder() / f"{pid}.json")


def forget(pid: int) -> None:
    """Say that it does not run any more."""
    (folder() / f"{pid}.json").unlink(missing_ok=True)


def running() -> list[Running]:
    """All that run on this machine; what was left of others is removed."""
    found: list[Running] = []
    for file in sorted(folder().glob("*.json")):
        each = _read(file)
        if each is None:
            file.unlink(missing_ok=True)
        elif each is not ELSEWHERE:
            found.append(each)
    return found


def standing() -> Running | None:
    """The one that a person has started; None where there is none."""
    return next((each for each in running() if each.name == STANDING), None)


ELSEWHERE = Running(0, "", "")
"""Stands for one of another machine that shares the volume."""


def _read(file: Path) -> Running | None:
    try:
        told = cast("dict[str, Any]", json.loads(file.read_text()))
        if told["place"] != here().tag:
            return ELSEWHERE
        if not lives(int(told["pid"]), int(told["started"])):
            return None
        return Running(int(told["pid"]), str(told["url"]), str(told["name"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
