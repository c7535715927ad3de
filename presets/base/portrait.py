"""What the portrait presets have in common."""

from tasks.detail import DetailParams

UPRIGHT = (2, 3)
"""Width to height of a classic portrait print; square models draw it without doubling heads."""
NEGATIVE = (
    "plastic skin, airbrushed, waxy, doll, oversaturated, extra fingers, deformed hands, "
    "cross-eyed, watermark, text"
)
"""The usual faults of photographic models, named so that guidance leads away from them."""
DETAIL_FACES = DetailParams(
    region="face",
    confidence=0.9,  # below, patterned cloth is taken for faces
    padding=0.35,  # hair and chin belong to the crop, so that the blend lies on calm areas
    strength=0.35,  # sharpens eyes and teeth; from 0.45 on it becomes another person
)
"""A second look at faces, which are small in an upright frame and come out soft."""
