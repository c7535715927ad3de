"""Finds hands on the CPU, with a network of 2 MB that is part of this repository."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from safelight import weights
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine, Request
from safelight.engines.machine.loaded import loaded
from safelight.engines.mending import Hand, HandRequest
from safelight.engines.palms.anchors import SIDE, hands_in, logit, shared_area
from safelight.engines.squares import SquareNet, square_of
from safelight.installed import version
from safelight.pixels import Floats, Pixels
from safelight.progress import step
from safelight.weights.packaged import packaged_sha256

REVISION = 1
"""Raised when our arithmetic changes the boxes."""
FILE = Path(weights.__file__).parent / "palm_detection_lite.tflite.xz"
BOXES, SCORES = "Identity", "Identity_1"
"""What the network calls its two results."""
PARTS = (1.0, 0.5)
"""Squares that are looked at, as part of the shorter side, after the whole picture."""
SMALLEST_PART = 96
"""Squares below see nothing that larger ones do not, px."""
SAME = 0.4
"""Part of the area that both cover, from which two boxes are one hand."""


class Palms(LocalEngine):
    """Finds hands by their palms."""

    engine_id: ClassVar[str] = "palms"

    def identity(self, request: Request) -> EngineIdentity:
        """The same for every confidence.

        Raises:
            ChecksumMismatchError: the file is another one.
        """
        del request
        return EngineIdentity(
            engine_id="palms",
            version=f"{REVISION}.opencv{version('opencv-python-headless')}",
            weights=(packaged_sha256(FILE),),
        )

    def find_hands(self, request: HandRequest, image: Pixels) -> tuple[Hand, ...]:
        """In the whole picture, and in squares of it, so that smaller hands are found too.

        Raises:
            ChecksumMismatchError: the file is another one.
        """
        network = loaded(
            ("palms", packaged_sha256(FILE)), partial(Network, FILE), FILE.stat().st_size
        )
        found = np.zeros((0, 5), np.float32)
        for top, left, side in _squares(*image.shape[:2]):
            step(0, 1)  # too short to be counted, long enough to be stopped
            boxes = network.look(
                square_of(image, top, left, side, SIDE, "constant"), request.confidence
            )
            boxes[:, :4] *= side / SIDE
            boxes[:, :4] += np.array([left, top, left, top], np.float32)
            found = np.concatenate([found, boxes])
        hands = [Hand(*map(float, box)) for box in _once(found)]
        return tuple(sorted(hands, key=lambda hand: (hand.left, hand.top)))


class Network(SquareNet):
    """The detector."""

    def look(self, square: Pixels, least: float) -> Floats:
        """Boxes of hands, as `hands_in`, in (192, 192, 3) uint8 sRGB."""
        with self.turn:
            self.give(square)
            scores = np.array(self.net.forward(SCORES))[0, :, 0]
            if scores.max() < logit(least):
                return np.zeros((0, 5), np.float32)
            # only now: each result by itself runs what both have in common
            values = np.array(self.net.forward(BOXES))[0]
        return hands_in(values, scores, least)


def _squares(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Top, left and side of what is looked at; the first reaches beyond the shorter side."""
    longer, shorter = max(height, width), min(height, width)
    yield (height - longer) // 2, (width - longer) // 2, longer
    for part in PARTS:
        side = round(shorter * part)
        if side < SMALLEST_PART or side == longer:
            continue
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield top, left, side


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin that lie at most half their side apart and cover everything."""
    count = -(-2 * (length - side) // side)
    return [round(at * (length - side) / max(count, 1)) for at in range(count + 1)]


def _once(boxes: Floats) -> list[Floats]:
    """Each hand once: of boxes on each other the surest, and none within a surer one."""
    kept: list[Floats] = []
    for box in boxes[np.argsort(-boxes[:, 4], kind="stable")]:
        others = np.array(kept, np.float32).reshape(-1, 5)
        if not (shared_area(box, others) > SAME).any() and not _inside(box, others).any():
            kept.append(box)
    return kept


def _inside(box: Floats, others: Floats) -> NDArray[np.bool_]:
    middle = (box[:2] + box[2:4]) / 2
    within = np.logical_and(others[:, :2] < middle, middle < others[:, 2:4])
    return np.asarray(within.all(axis=1))


ENGINE = Palms()
