"""Whether a picture is fit to be a reference: large, sharp, of one face, and not there already."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from safelight.characters.records import Kind
from safelight.engines.choosing import choose
from safelight.engines.interface import FaceRequest, FindsFaces
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels

SMALLEST: dict[Kind, int] = {"person": 256, "thing": 64}
"""Shorter side, px: IP-Adapters look at 224, and what is enlarged is learnt blurred."""
SMALLEST_FACE = 64
"""Shorter side of the box around a face, px."""
LOOKED_AT = 256
"""Longer side at which sharpness is measured, px, so that it says the same of all sizes."""
SHARP = 30.0
"""Least variance of the Laplacian, in 8-bit levels squared: photographs have hundreds, out of focus
by a hundredth of their width they have under 20."""
ALIKE = 3
"""Bits of 64 in which the likeness of two pictures may differ and they count as one: a copy that
was scaled or saved again differs in at most this many."""
CONFIDENCE = 0.9


def require_quality(pixels: Pixels, kind: Kind, known: Sequence[str], name: str) -> str:
    """Refuse a picture that teaches little, or what is known.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        kind: of the character.
        known: likeness of the pictures that are there.
        name: of the file, for messages.

    Returns:
        Its likeness.

    Raises:
        InvalidMediaError: why it is refused.
        DependencyMissingError: the weights of the face detector are not installed.
    """
    high, wide = pixels.shape[:2]
    least = SMALLEST[kind]
    if min(high, wide) < least:
        raise InvalidMediaError(
            f"{name} is {wide}x{high} px, a reference of a {kind} has at least {least} px a side",
            "take a larger picture",
        )
    measured = sharpness(pixels)
    if measured < SHARP:
        raise InvalidMediaError(
            f"{name} is not sharp: its sharpness is {measured:.1f}, expected {SHARP:g} or more",
            "take a picture that is in focus",
        )
    mine = likeness(pixels)
    twin = next((at for at, one in enumerate(known, 1) if difference(one, mine) <= ALIKE), None)
    if twin is not None:
        raise InvalidMediaError(
            f"{name} looks the same as picture {twin} of the character",
            "take a picture that shows something else",
        )
    if kind == "person":
        _require_one_face(pixels, name)
    return mine


def sharpness(pixels: Pixels) -> float:
    """Variance of the Laplacian of the greys, at one size for all pictures.

    Source:
        Pech-Pacheco et al. 2000, diatom autofocusing in brightfield microscopy.
    """
    image = Image.fromarray(pixels).convert("L")
    image.thumbnail((LOOKED_AT, LOOKED_AT), Image.Resampling.BOX)
    grey = np.asarray(image, np.float32)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def likeness(pixels: Pixels) -> str:
    """64 bits as hex: which of 8 x 8 places is brighter than the one beside it."""
    image = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(image, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()


def difference(first: str, second: str) -> int:
    """In how many bits two likenesses differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _require_one_face(pixels: Pixels, name: str) -> None:
    request = FaceRequest(CONFIDENCE)
    engine = choose(request, ()).engine
    faces = engine.find_faces(request, pixels) if isinstance(engine, FindsFaces) else ()
    if len(faces) != 1:
        raise InvalidMediaError(
            f"{name} shows {len(faces)} faces at confidence {CONFIDENCE:g}, expected one",
            "take a picture of this person alone, or cut the others off",
        )
    side = min(faces[0].right - faces[0].left, faces[0].bottom - faces[0].top)
    if side < SMALLEST_FACE:
        raise InvalidMediaError(
            f"the face in {name} is {side:.0f} px, expected {SMALLEST_FACE} px or more",
            "take a picture from nearer, or a larger one",
        )
