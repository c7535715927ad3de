"""Files that people bring: looked at before they are kept, named by their content."""

import os
from pathlib import Path

from safelight.errors import ForbiddenPathError, InvalidMediaError, MissingFileError
from safelight.media.images import decode_image, inspect_image
from safelight.media.sound import probe_sound
from safelight.media.video import probe
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.store import SCHEME, current_store

IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
"""Sample media of the checkout; may be read from everywhere."""


def allowed_roots() -> tuple[Path, ...]:
    """Folders that runs may read inputs from."""
    extra = [Path(root) for root in settings().input_roots.split(os.pathsep) if root]
    return tuple(root.resolve() for root in (settings().volume_root, EXAMPLES, *extra))


def allowed_file(location: str) -> Path:
    """The file at a path that a run was given, links followed.

    Raises:
        ForbiddenPathError: it lies outside the folders inputs may come from, or is no plain file.
        MissingFileError: there is no such file.
    """
    if "\0" in location:
        raise ForbiddenPathError(f"path {location!r} holds a NUL", "correct the path")
    path = Path(location).resolve()
    if not any(path.is_relative_to(root) for root in allowed_roots()):
        roots = ", ".join(str(root) for root in allowed_roots())
        raise ForbiddenPathError(
            f"{location} lies outside the folders inputs may come from: {roots}",
            "move the file there, add its folder to SAFELIGHT_INPUT_ROOTS, or upload it",
        )
    return _plain_file(path, location)


def upload_local(file: Path) -> str:
    """Keep a file that the person at this machine names; its `store:` link.

    Raises:
        MissingFileError: there is no such file.
        ForbiddenPathError: it is a folder, device or pipe.
        InvalidMediaError: it holds no picture, video or sound.
    """
    path = _plain_file(file.resolve(), str(file))
    return keep_media(path, ("image", "video", "audio")).uri


def keep_media(path: Path, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Look into a file, whatever it is called, and keep it when it is what it should be.

    Args:
        path: a plain file.
        kinds: what it may hold.

    Raises:
        InvalidMediaError: empty, damaged, too large, or none of `kinds`.
    """
    size = path.stat().st_size
    if size == 0:
        raise InvalidMediaError(
            f"{path.name} is empty (0 bytes), expected {' or '.join(kinds)}",
            "upload the file again",
        )
    with path.open("rb") as file:
        start = file.read(12)
    store = current_store()
    if _is_image(start):
        _require("image", kinds, path)
        data = path.read_bytes()
        media_type, _, _ = inspect_image(data, settings().max_input_megapixels)
        pixels = decode_image(data)  # a picture that breaks off is found here, not by a model
        height, width = pixels.shape[:2]
        return store.put(
            data, media_type, width=width, height=height, pixels=pixels, folder="uploads"
        )
    if kinds == ("image",):
        inspect_image(start)  # says what was found
    if "video" not in kinds:
        _require("audio", kinds, path)
        return store.put(path, probe_sound(path), folder="uploads")
    info = probe(path)
    return store.put(
        path,
        info.media_type,
        width=info.width,
        height=info.height,
        frames=info.frames,
        fps=float(info.fps),
        folder="uploads",
    )


def find_stored(uri: str, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """The artifact behind a `store:` link.

    Raises:
        MissingFileError: nothing is stored there.
        ForbiddenPathError: the link leads out of uploads and outputs.
        InvalidMediaError: it is none of `kinds`.
    """
    key = uri.removeprefix(SCHEME)
    if not key.startswith(("outputs/", "uploads/")):
        raise ForbiddenPathError(
            f"{uri} is neither an upload nor an output", "pass the link of an artifact"
        )
    store = current_store()
    store.scratch.mkdir(parents=True, exist_ok=True)
    path = store.backend.fetch(key, store.scratch / Path(key).name)
    ref = keep_media(path, kinds)
    return ref.model_copy(update={"uri": uri}) if ref.sha256 == Path(key).stem else ref


def _is_image(start: bytes) -> bool:
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    return start.startswith(IMAGE_STARTS)


def _require(found: MediaKind, kinds: tuple[MediaKind, ...], path: Path) -> None:
    if found not in kinds:
        raise InvalidMediaError(
            f"{path.name} holds {found}, expected {' or '.join(kinds)}",
            f"pass a file with {' or '.join(kinds)}",
        )


def _plain_file(path: Path, shown: str) -> Path:
    if path.is_file():
        return path
    if path.exists():
        raise ForbiddenPathError(f"{shown} is not a plain file", "name a picture, video or sound")
    raise MissingFileError(f"there is no file {shown}", "correct the path")
