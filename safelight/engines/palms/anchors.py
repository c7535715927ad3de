"""From what the palm detector says at each of its places to boxes of hands.

Source:
    Zhang et al. 2020, MediaPipe Hands: On-device Real-time Hand Tracking, arXiv:2006.10214; the
    places, the threshold of overlap and the box of a hand around its palm as in the graphs
    `palm_detection_cpu` and `palm_detection_detection_to_roi` of MediaPipe 0.10.21.
"""

from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from safelight.pixels import Floats

SIDE = 192
"""Of the squares that it looks at, px."""
GRIDS = ((24, 2), (12, 6))
"""Places along each side, and how often it answers at each."""
WRIST, MIDDLE_FINGER = 0, 2
"""Of the seven points of a palm: where the hand begins, and the root of its middle finger."""
HAND_SIZE, HAND_SHIFT = 2.6, 0.5
"""Side of the box of a hand, and how far towards the fingers it lies, in sides of the palm."""
OVERLAP = 0.3
"""Part of the area that both cover, of that either covers, from which two palms are one."""


@lru_cache(maxsize=1)
def _centres() -> Floats:
    """(2016, 2): column and row of each place, px."""
    found: list[Floats] = []
    for cells, answers in GRIDS:
        at = (np.arange(cells, dtype=np.float32) + 0.5) * (SIDE / cells)
        columns, rows = np.meshgrid(at, at)
        pairs = np.stack([columns.ravel(), rows.ravel()], axis=1)
        found.append(np.repeat(pairs, answers, axis=0).astype(np.float32))
    return np.concatenate(found)


def logit(probability: float) -> float:
    """What the logistic function makes a probability of, 0 to 1."""
    share = min(max(probability, 1e-9), 1 - 1e-9)
    return log(share / (1 - share))


def hands_in(values: Floats, scores: Floats, least: float) -> Floats:
    """Boxes of hands, (n, 5): left, top, right, bottom in px of the square, score; best first.

    Args:
        values: (2016, 18): centre, sides and seven points of a palm from each place, px.
        scores: (2016,), before the logistic function.
        least: score, 0 to 1, from which a palm counts.
    """
    chosen = scores >= logit(least)
    palms, centres = values[chosen], _centres()[chosen]
    weighed = np.exp(-np.clip(scores[chosen], -60, 60))
    sure: Floats = (1 / (1 + weighed)).astype(np.float32)
    points = palms[:, 4:].reshape(-1, 7, 2) + centres[:, None]
    middle, sides = palms[:, :2] + centres, palms[:, 2:4].max(axis=1, keepdims=True)
    kept = _apart(np.concatenate([middle - sides / 2, middle + sides / 2], axis=1), sure)
    middle, sides, points, sure = middle[kept], sides[kept], points[kept], sure[kept]
    way = points[:, MIDDLE_FINGER] - points[:, WRIST]
    way = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
    middle = middle + way * sides * HAND_SHIFT
    # a turned square reaches further along rows and columns than one that stands
    half = sides * (HAND_SIZE / 2) * np.abs(way).sum(axis=1, keepdims=True).clip(1, 1.2)
    return np.concatenate([middle - half, middle + half, sure[:, None]], axis=1).astype(np.float32)


def _apart(boxes: Floats, scores: Floats) -> NDArray[np.intp]:
    """Of boxes on each other only the surest; indices, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[shared_area(boxes[best], boxes[order]) <= OVERLAP]
    return np.array(kept, np.intp)


def shared_area(box: Floats, others: Floats) -> Floats:
    """Of the area that a box and each of (n, 4 or more) others cover, the part that both do."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    both = np.maximum(high - low, 0).prod(axis=1)
    areas = (others[:, 2:4] - others[:, :2]).prod(axis=1)
    return both / np.maximum((box[2:4] - box[:2]).prod() + areas - both, 1e-6)
