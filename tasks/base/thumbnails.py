"""Stored pictures and videos as small as they are shown on a sheet."""

from collections.abc import Sequence

from safelight.media.previews import poster_strip
from safelight.media.sheets import fitted
from safelight.pixels import Pixels
from safelight.progress import step
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import load_image


def thumbnails(pictures: Sequence[ArtifactRef], cell: int) -> list[Pixels]:
    """Pictures, and the middle frames of videos, (H, W, 3) uint8 sRGB, none wider or higher than
    `cell`; one step each.
    """
    shown: list[Pixels] = []
    for done, ref in enumerate(pictures):
        step(done, len(pictures))
        whole = load_image(ref) if ref.kind == "image" else _frame(ref)
        shown.append(fitted(whole, cell))
    step(len(pictures), len(pictures))
    return shown


def _frame(ref: ArtifactRef) -> Pixels:
    return poster_strip(current_store().fetch(ref), 1)
