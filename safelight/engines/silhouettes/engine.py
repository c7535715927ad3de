"""Outlines people on the CPU, with a network of 0.2 MB that is part of this repository.

The network tells what stands in front from what lies behind: a cat and a cup stand in front too. So
it is asked about squares that begin above a face, and what it outlines counts as a person only
where it holds together with that face.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from safelight import weights
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine, Request
from safelight.engines.machine.loaded import loaded
from safelight.engines.mending import Person, PersonRequest
from safelight.engines.results import Face
from safelight.engines.squares import SquareNet, square_of
from safelight.installed import version
from safelight.pixels import Floats, Pixels
from safelight.progress import step
from safelight.weights.packaged import packaged_sha256

REVISION = 1
"""Raised when our arithmetic changes the boxes."""
FILE = Path(weights.__file__).parent / "selfie_segmentation.tflite.xz"
SIDE = 256
"""Of what the network sees, px."""
SURE = 0.5
"""Part of a person from which a pixel belongs to one."""
ABOVE = 1.0
"""Room above a face for hair and hats, in heights of the face."""
SQUARES = (4.0, 8.0, 12.0)
"""Sides of what is looked at, in heights of the face: head and shoulders, then more of the body."""


class Silhouettes(LocalEngine):
    """Outlines people around their faces."""

    engine_id: ClassVar[str] = "silhouettes"

    def identity(self, request: Request) -> EngineIdentity:
        """The same for every picture.

        Raises:
            ChecksumMismatchError: the file is another one.
        """
        del request
        return EngineIdentity(
            engine_id="silhouettes",
            version=f"{REVISION}.opencv{version('opencv-python-headless')}",
            weights=(packaged_sha256(FILE),),
        )

    def find_people(
        self, request: PersonRequest, image: Pixels, faces: Sequence[Face]
    ) -> tuple[Person, ...]:
        """One for each face that something holds together with; as far down as it reaches.

        Raises:
            ChecksumMismatchError: the file is another one.
        """
        del request
        network = loaded(
            ("silhouettes", packaged_sha256(FILE)), partial(Network, FILE), FILE.stat().st_size
        )
        found = (_person(network, image, face, faces) for face in faces)
        people = [person for person in found if person is not None]
        return tuple(sorted(people, key=lambda person: (person.left, person.top)))


class Network(SquareNet):
    """The segmentation."""

    def outline(self, square: Pixels) -> Floats:
        """(256, 256) float32, 0 to 1: how much of each pixel of (256, 256, 3) is a person."""
        with self.turn:
            self.give(square)
            return np.array(self.net.forward()).reshape(SIDE, SIDE)


def _person(network: Network, image: Pixels, face: Face, faces: Sequence[Face]) -> Person | None:
    """The person of a face, looked at in larger squares until an edge no longer cuts it off."""
    tall = face.bottom - face.top
    found: Person | None = None
    for times in SQUARES:
        step(0, 1)  # too short to be counted, long enough to be stopped
        side = max(round(tall * times), 1)
        top = round(face.top - tall * ABOVE)
        left = round((face.left + face.right - side) / 2)
        outline = network.outline(square_of(image, top, left, side, SIDE, "edge"))
        whole = _whole(outline, side, top, left, image)
        held = _held(whole, face, faces, top, left)
        if held is None:
            break
        rows, columns = np.nonzero(held.any(axis=1))[0], np.nonzero(held.any(axis=0))[0]
        found = Person(
            left=min(left + float(columns[0]), face.left),
            top=min(top + float(rows[0]), face.top),
            right=max(left + float(columns[-1]) + 1, face.right),
            bottom=max(top + float(rows[-1]) + 1, face.bottom),
            confidence=face.confidence,
        )
        cut_off = rows[-1] + 1 >= side or columns[0] == 0 or columns[-1] + 1 >= side
        if not cut_off or _covers(image, top, left, side):
            break
    return found


def _covers(image: Pixels, top: int, left: int, side: int) -> bool:
    """Whether a larger square would see nothing more."""
    height, width = image.shape[:2]
    return top + side >= height and left <= 0 and left + side >= width


def _whole(outline: Floats, side: int, top: int, left: int, image: Pixels) -> NDArray[np.bool_]:
    """What belongs to a person, in pixels of the square; nothing beyond the picture does."""
    import cv2

    found: Any = cv2.resize(outline, (side, side), interpolation=cv2.INTER_LINEAR) > SURE
    height, width = image.shape[:2]
    found[: max(-top, 0)] = False
    found[max(height - top, 0) :] = False
    found[:, : max(-left, 0)] = False
    found[:, max(width - left, 0) :] = False
    return found


def _held(
    whole: NDArray[np.bool_], face: Face, faces: Sequence[Face], top: int, left: int
) -> NDArray[np.bool_] | None:
    """What holds together with the face, and is nearer to it than to other faces."""
    import cv2

    columns = np.arange(whole.shape[1], dtype=np.float32) + left
    own = np.abs(columns - _middle(face))
    for other in faces:
        if other is not face:
            whole[:, np.abs(columns - _middle(other)) < own] = False
    _, labels = cv2.connectedComponents(whole.astype(np.uint8))
    inside = labels[
        max(round(face.top) - top, 0) : max(round(face.bottom) - top, 0),
        max(round(face.left) - left, 0) : max(round(face.right) - left, 0),
    ]
    counted = np.bincount(inside.ravel(), minlength=2)
    counted[0] = 0
    if 2 * counted.max() < inside.size:
        return None
    held: NDArray[np.bool_] = labels == counted.argmax()
    return held


def _middle(face: Face) -> float:
    return (face.left + face.right) / 2


ENGINE = Silhouettes()
