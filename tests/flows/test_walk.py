"""docs/architecture.md: its walk is what a picture goes through."""

import re
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from flows.generate import generate

CHECKOUT = Path(__file__).resolve().parents[2]
STEP = re.compile(r"^\d\. \[`([a-z0-9_/]+\.py)`\]\(\.\./([a-z0-9_/]+\.py)\)", re.MULTILINE)
MOST_MODULES = 8


@pytest.mark.usefixtures("server", "volume")
def test_a_picture_goes_through_the_modules_of_the_walk_in_their_order():
    steps = STEP.findall((CHECKOUT / "docs" / "architecture.md").read_text())
    walk = [path for path, _ in steps]
    assert 0 < len(walk) <= MOST_MODULES
    assert all(shown == linked for shown, linked in steps)
    places = {str(CHECKOUT / path): path for path in walk}
    entered: list[str] = []

    def called(frame: FrameType, event: str, _: object) -> None:
        path = places.get(frame.f_code.co_filename)
        if event == "call" and path is not None and path not in entered:
            entered.append(path)

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        result = generate(prompt="a red heart", seed=1, steps=1, width=64, height=64)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert len(result.artifacts) == 1
    assert entered == walk
