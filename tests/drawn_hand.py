"""A hand, drawn: no free photograph of one comes with the packages that the tests install."""

import cv2
import numpy as np

PARTS = (
    ((128, 256), (128, 190), 34, 36),  # wrist
    ((106, 172), (104, 140), 28, 16),  # palm
    ((126, 170), (126, 136), 28, 16),
    ((146, 172), (148, 140), 28, 16),
    ((116, 190), (140, 190), 38, 38),
    ((100, 140), (84, 70), 13, 10),  # fingers
    ((122, 132), (118, 50), 13.5, 10),
    ((143, 136), (150, 62), 13, 10),
    ((162, 150), (184, 92), 11.5, 8.5),
    ((96, 190), (48, 140), 18, 12),  # thumb
)
"""From and to (column, row), and how thick there, px."""
CREASES = (
    ((88, 168), (150, 150)),
    ((90, 182), (158, 172)),
    ((110, 160), (100, 220)),
    ((82, 105), (94, 101)),
    ((112, 92), (126, 92)),
    ((139, 98), (152, 100)),
    ((166, 122), (177, 126)),
    ((84, 85), (92, 83)),
)
WHOLE = (36, 40, 194, 230)
"""From the tip of the thumb to the little finger, from the middle finger to the wrist."""


def drawn_hand() -> np.ndarray:
    """An open left hand from within, (256, 256, 3), before grey-blue."""
    y, x = np.mgrid[:256, :256].astype(np.float32)
    height = np.zeros((256, 256), np.float32)
    for (x0, y0), (x1, y1), thick, thin in PARTS:
        along = np.clip(
            ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1
        )
        away = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
        radius = thick + (thin - thick) * along
        height = np.maximum(height, np.sqrt(np.clip(1 - (away / radius) ** 2, 0, 1)))
    cover = cv2.GaussianBlur((height > 0).astype(np.float32), (0, 0), 1)[..., None]
    height = cv2.GaussianBlur(height, (0, 0), 2)
    right, down = np.gradient(height, axis=1), np.gradient(height, axis=0)
    light = np.clip(0.62 + 0.38 * height - 6 * right - 4 * down, 0.25, 1.1)[..., None]
    seen = np.float32([90, 110, 120]) * (1 - cover) + np.float32([222, 172, 142]) * light * cover
    lined = seen.copy()
    for start, end in CREASES:
        cv2.line(lined, start, end, (165, 110, 90), 2, cv2.LINE_AA)
    grain = np.random.default_rng(0).normal(0, 3, seen.shape)
    return np.clip((seen + lined) / 2 + grain, 0, 255).astype(np.uint8)
