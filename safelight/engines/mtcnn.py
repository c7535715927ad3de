"""Face detection with the three-network cascade MTCNN.

Source:
    Zhang et al. 2016, Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
    Networks, arXiv:1604.02878; weights (pnet.pt, rnet.pt, onet.pt) as in the package
    facenet-pytorch 2.6.0, MIT licence, copyright 2019 Timothy Esler. That package itself is not
    imported: it needs torchvision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    Face,
    FaceRequest,
    LocalEngine,
    Request,
)
from safelight.engines.machine.device import device_class, resolve_device
from safelight.engines.machine.loaded import loaded
from safelight.errors import DependencyMissingError
from safelight.installed import version
from safelight.pixels import Floats, Pixels
from safelight.progress import step
from safelight.weights.packaged import packaged_bytes, packaged_sha256

if TYPE_CHECKING:
    from torch import Tensor


ENGINE_ID = "mtcnn"
PACKAGE, WEIGHTS_FILES = "facenet_pytorch", ("pnet.pt", "rnet.pt", "onet.pt")
REVISION = 1
"""Raised when our arithmetic changes the boxes."""
SMALLEST = 20
"""Side of the smallest face that is looked for, pixels."""
SMALLEST_SHARE = 1 / 80
"""The same as part of the longer side: faces below are texture, and memory stays bounded."""
PYRAMID = 0.709
"""Each size of the picture to the one before: half the area."""
CELL, STRIDE = 12, 2
"""What the first network looks at, and how far apart, pixels."""
PROPOSED, REFINED = 0.6, 0.7
"""Scores that pass the first and the second network; the third's is the caller's to choose."""
REFINE_SIDE, FINAL_SIDE = 24, 48
"""Sides of the crops that the second and the third network look at."""
LANDMARKS = 5
"""Points that the third network places in each face."""
BATCH = 256
"""Crops looked at together."""
WITHIN_SIZE, BETWEEN = 0.5, 0.7
"""Overlap above which two boxes are one face, at one size of the picture and later."""


def identity() -> EngineIdentity:
    """Which results are interchangeable; reads only package metadata and the weights' bytes."""
    return EngineIdentity(
        engine_id=ENGINE_ID,
        version=f"{REVISION}.torch{version('torch')}",
        weights=tuple(_sha256(path) for path in weights_paths()),
        device_class=device_class(),
    )


def weights_paths() -> tuple[Path, ...]:
    """Where the three networks lie, without importing their package.

    Raises:
        DependencyMissingError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    for place in [] if spec is None else spec.submodule_search_locations or []:
        paths = tuple(Path(place) / "data" / name for name in WEIGHTS_FILES)
        if all(path.is_file() for path in paths):
            return paths
    raise DependencyMissingError(
        f"the face detector's weights ({', '.join(WEIGHTS_FILES)} of the package "
        "facenet-pytorch 2.6.0) are not installed",
        "install them with: pip install --no-deps facenet-pytorch==2.6.0",
    )


def _sha256(path: Path) -> str:
    return packaged_sha256(path)


def find_faces(image: Pixels, confidence: float) -> list[Face]:
    """All faces of a picture, from left to right.

    Args:
        image: (H, W, 3) uint8 sRGB.
        confidence: score of the last network, 0 to 1, from which a box counts as a face.

    Returns:
        Faces of 20 px and more, and of at least an 80th of the longer side.

    Raises:
        DependencyMissingError: the weights are not installed.
    """
    import torch

    device = resolve_device()
    paths = weights_paths()
    key = (ENGINE_ID, *(_sha256(path) for path in paths), device)
    networks = loaded(key, lambda: Networks.load(paths, device), lambda found: found.bytes)
    with torch.inference_mode():
        boxes = _refined(networks, image, _proposals(networks, image))
        boxes = _final(networks, image, boxes, confidence)
    return sorted((_face(box) for box in boxes), key=lambda face: (face.left, face.top))


def _face(box: Floats) -> Face:
    left, top, right, bottom, confidence, *points = (float(value) for value in box)
    columns, rows = points[:LANDMARKS], points[LANDMARKS:]
    return Face(left, top, right, bottom, confidence, tuple(zip(columns, rows, strict=True)))


@dataclass(frozen=True)
class Networks:
    """The three networks, as arithmetic on their weights."""

    proposing: "dict[str, Tensor]"
    """Fully convolutional, looks at every place."""
    refining: "dict[str, Tensor]"
    """Looks at crops of 24 px."""
    final: "dict[str, Tensor]"
    """Looks at crops of 48 px."""
    device: str
    """Where they lie."""

    @classmethod
    def load(cls, paths: tuple[Path, ...], device: str) -> Self:
        """Read the weights.

        Raises:
            ChecksumMismatchError: one is another file than that of the package.
        """
        import torch

        proposing, refining, final = (
            torch.load(BytesIO(packaged_bytes(path)), map_location=device, weights_only=True)
            for path in paths
        )
        return cls(proposing, refining, final, device)

    @property
    def bytes(self) -> int:
        """Memory the weights take."""
        parts = (self.proposing, self.refining, self.final)
        return sum(tensor.nbytes for part in parts for tensor in part.values())

    def propose(self, seen: "Tensor") -> tuple[Floats, Floats]:
        """Score (h, w) and box changes (4, h, w) at each place of one picture."""
        from torch.nn import functional

        state = self.proposing
        deep = functional.max_pool2d(_layer(state, 1, seen), 2, 2, ceil_mode=True)
        deep = _layer(state, 3, _layer(state, 2, deep))
        score = functional.conv2d(deep, state["conv4_1.weight"], state["conv4_1.bias"])
        change = functional.conv2d(deep, state["conv4_2.weight"], state["conv4_2.bias"])
        return _numpy(score.softmax(dim=1)[0, 1]), _numpy(change[0])

    def refine(self, seen: "Tensor") -> tuple[Floats, Floats]:
        """Scores (n,) and box changes (n, 4) of crops (n, 3, 24, 24)."""
        from torch.nn import functional

        state = self.refining
        deep = functional.max_pool2d(_layer(state, 1, seen), 3, 2, ceil_mode=True)
        deep = functional.max_pool2d(_layer(state, 2, deep), 3, 2, ceil_mode=True)
        return _judged(state, _layer(state, 3, deep), 4, ("5_1", "5_2"))

    def judge(self, seen: "Tensor") -> tuple[Floats, Floats]:
        """Scores (n,), box changes and landmarks (n, 4 + 10) of crops (n, 3, 48, 48)."""
        from torch.nn import functional

        state = self.final
        deep = functional.max_pool2d(_layer(state, 1, seen), 3, 2, ceil_mode=True)
        deep = functional.max_pool2d(_layer(state, 2, deep), 3, 2, ceil_mode=True)
        deep = functional.max_pool2d(_layer(state, 3, deep), 2, 2, ceil_mode=True)
        return _judged(state, _layer(state, 4, deep), 5, ("6_1", "6_2", "6_3"))

    def tensor(self, crops: list[Pixels]) -> "Tensor":
        """(n, 3, h, w), about -1 to 1, of crops of one size."""
        import torch

        levels = torch.from_numpy(np.stack(crops)).to(self.device)
        return (levels.permute(0, 3, 1, 2).float() - 127.5) / 128


def _layer(state: "dict[str, Tensor]", index: int, seen: "Tensor") -> "Tensor":
    from torch.nn import functional

    made = functional.conv2d(seen, state[f"conv{index}.weight"], state[f"conv{index}.bias"])
    return functional.prelu(made, state[f"prelu{index}.weight"])


def _judged(
    state: "dict[str, Tensor]", deep: "Tensor", dense: int, heads: tuple[str, ...]
) -> tuple[Floats, Floats]:
    from torch.nn import functional

    # the weights come from a library that counts columns before rows
    flat = deep.permute(0, 3, 2, 1).flatten(1)
    flat = functional.linear(flat, state[f"dense{dense}.weight"], state[f"dense{dense}.bias"])
    flat = functional.prelu(flat, state[f"prelu{dense}.weight"])
    score, *changes = (
        functional.linear(flat, state[f"dense{head}.weight"], state[f"dense{head}.bias"])
        for head in heads
    )
    changed = np.concatenate([_numpy(change) for change in changes], axis=1)
    return _numpy(score.softmax(dim=1)[:, 1]), changed


def _numpy(tensor: "Tensor") -> Floats:
    return tensor.float().cpu().numpy()


def _scales(height: int, width: int) -> Iterator[float]:
    scale = CELL / max(SMALLEST, max(height, width) * SMALLEST_SHARE)
    while min(height, width) * scale >= CELL:
        yield scale
        scale *= PYRAMID


def _proposals(networks: Networks, image: Pixels) -> Floats:
    """Square boxes (n, 5) from the first network at all sizes of the picture."""
    height, width = image.shape[:2]
    found = [np.zeros((0, 5), np.float32)]
    for scale in _scales(height, width):
        step(0, 1)  # too short to be counted, long enough to be stopped
        smaller = _resized(image, int(width * scale + 1), int(height * scale + 1))
        score, change = networks.propose(networks.tensor([smaller]))
        rows, columns = np.nonzero(score >= PROPOSED)
        corner = np.stack([columns, rows], axis=1) * STRIDE
        boxes = np.concatenate(
            [
                np.floor((corner + 1) / scale),
                np.floor((corner + CELL) / scale),
                score[rows, columns, None],
            ],
            axis=1,
        ).astype(np.float32)
        kept = suppressed(boxes, WITHIN_SIZE)
        found.append(_moved(boxes[kept], change[:, rows, columns].T[kept], 0))
    boxes = np.concatenate(found)
    return _squared(boxes[suppressed(boxes, BETWEEN)])


def _refined(networks: Networks, image: Pixels, boxes: Floats) -> Floats:
    scores, changes = _looked_at(networks, image, boxes, REFINE_SIDE, 4)
    return _squared(_passed(boxes, scores, changes, REFINED))


def _final(networks: Networks, image: Pixels, boxes: Floats, confidence: float) -> Floats:
    scores, changes = _looked_at(networks, image, boxes, FINAL_SIDE, 4 + 2 * LANDMARKS)
    with_landmarks = np.concatenate([boxes, _landmarks(boxes, changes[:, 4:])], axis=1)
    found = _passed(with_landmarks, scores, changes[:, :4], confidence)
    return found[suppressed(found, BETWEEN, of_smaller=True)]


def _landmarks(boxes: Floats, shares: Floats) -> Floats:
    """Columns, then rows, (n, 10), from parts of the box's sides."""
    sides = boxes[:, 2:4] - boxes[:, :2] + 1
    corner = boxes[:, :2] - 1  # the weights count pixels from 1
    points = np.repeat(corner, LANDMARKS, axis=1) + shares * np.repeat(sides, LANDMARKS, axis=1)
    return points.astype(np.float32)


def _passed(boxes: Floats, scores: Floats, changes: Floats, least: float) -> Floats:
    """Boxes with their new scores, those below `least` and doubles gone, then moved."""
    passed = scores >= least
    judged = [boxes[passed, :4], scores[passed, None], boxes[passed, 5:]]
    boxes = np.concatenate(judged, axis=1)
    kept = suppressed(boxes, BETWEEN)
    return _moved(boxes[kept], changes[passed][kept], 1)


def _looked_at(
    networks: Networks, image: Pixels, boxes: Floats, side: int, values: int
) -> tuple[Floats, Floats]:
    """What the second or third network says: scores (n,) and changes (n, values)."""
    look = networks.refine if side == REFINE_SIDE else networks.judge
    scores, changes = [np.zeros(0, np.float32)], [np.zeros((0, values), np.float32)]
    for start in range(0, len(boxes), BATCH):
        crops = [_crop(image, box, side) for box in boxes[start : start + BATCH]]
        score, change = look(networks.tensor(crops))
        scores.append(score)
        changes.append(change)
    return np.concatenate(scores), np.concatenate(changes)


def _crop(image: Pixels, box: Floats, side: int) -> Pixels:
    """The part of the picture in a box, black beyond its edges, as the networks were trained."""
    height, width = image.shape[:2]
    left, top, right, bottom = (int(value) for value in box[:4])
    left, top = left - 1, top - 1  # the weights count pixels from 1
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    missing = (
        (max(-top, 0), max(bottom - max(height, top), 0)),
        (max(-left, 0), max(right - max(width, left), 0)),
        (0, 0),
    )
    if any(any(pair) for pair in missing):
        inside = np.pad(inside, missing)
    return _resized(inside, side, side)


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _moved(boxes: Floats, changes: Floats, pixel: int) -> Floats:
    """Boxes moved by parts of their sides; `pixel` is 1 where the last one counts."""
    sides = boxes[:, 2:4] - boxes[:, :2] + pixel
    corners = boxes[:, :4] + changes * np.tile(sides, 2)
    return np.concatenate([corners, boxes[:, 4:]], axis=1).astype(np.float32)


def _squared(boxes: Floats) -> Floats:
    """The squares around the same centres that are as long as the longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longest = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sides - longest) / 2
    return np.concatenate([corner, corner + longest, boxes[:, 4:]], axis=1).astype(np.float32)


def suppressed(boxes: Floats, overlap: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Which of many boxes remain when each takes away the lesser ones that overlap it.

    Args:
        boxes: (n, 5 or more): left, top, right, bottom, score.
        overlap: part of the area that both cover, of the area that either covers.
        of_smaller: measure it as part of the smaller box instead.

    Returns:
        Indices of those that remain, best first.
    """
    sides = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    areas = sides.prod(axis=1)
    order = np.argsort(-boxes[:, 4], kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.maximum(np.minimum(boxes[best, 2:4], boxes[order, 2:4]) - corner, 0)
        both = shared.prod(axis=1)
        either = areas[best] + areas[order] - both
        whole = np.minimum(areas[best], areas[order]) if of_smaller else either
        order = order[both <= overlap * whole]
    return np.array(kept, np.intp)


class Mtcnn(LocalEngine):
    """Finds faces with the weights that are installed."""

    engine_id: ClassVar[str] = ENGINE_ID

    def identity(self, request: Request) -> EngineIdentity:
        """The same for every confidence."""
        del request
        return identity()

    def find_faces(self, request: FaceRequest, image: Pixels) -> tuple[Face, ...]:
        """See `find_faces` of this module."""
        return tuple(find_faces(image, request.confidence))


ENGINE = Mtcnn()
