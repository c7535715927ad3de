"""From what a run was given to a checked artifact: the first thing that every flow does."""

from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.inputs import find_stored, keep_input
from safelight.store.store import SCHEME


def ingest(location: str, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Check a media input before any model loads.

    Args:
        location: a path below the volume root, `examples` or `SAFELIGHT_INPUT_ROOTS`, or the
            `store:` link of an artifact.
        kinds: what it may hold; the content decides, not the extension.

    Raises:
        MissingFileError: there is nothing.
        ForbiddenPathError: the path leaves the allowed folders, or is not a plain file.
        InvalidMediaError: empty, damaged, too large, without frames, or of another kind.
    """
    if location.startswith(SCHEME):
        return find_stored(location, kinds)
    return keep_input(location, kinds)
