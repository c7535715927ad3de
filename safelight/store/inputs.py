"""Files that people bring: looked at before they are kept, named by their content."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from pydantic import JsonValue

from safelight.errors import ForbiddenPathError, InvalidMediaError, MissingFileError
from safelight.media.animation import Timing, write_as_video
from safelight.media.images import inspect_image
from safelight.media.inspection import (
    look_at_size,
    look_into_sound,
    look_into_still,
    look_into_video,
)
from safelight.media.still_formats import HEAD, still_format
from safelight.media.video.stream import probe
from safelight.pixels import Pixels
from safelight.settings import MEGAPIXEL, settings
from safelight.store.artifact import EXTENSIONS, ArtifactRef, MediaKind
from safelight.store.disk import disk_errors
from safelight.store.opening import opened_below, path_of_handle
from safelight.store.store import SCHEME, current_store

FILE_BYTES, BYTES_PER_PIXEL = 64 * 2**20, 16
"""A picture's file may have so many bytes, and so many more for each of its pixels: twice what
16-bit RGBA takes uncompressed."""
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
"""Sample media of the checkout; may be read from everywhere."""
_ARTIFACT = re.compile(
    r"(?:outputs|uploads|characters/c[0-9a-f]{12})/[0-9a-f]{2}/([0-9a-f]{64})(\.[a-z0-9]+)"
)
_MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}


def allowed_roots() -> tuple[Path, ...]:
    """Folders that runs may read inputs from."""
    extra = [Path(root) for root in settings().input_roots.split(os.pathsep) if root]
    return tuple(root.resolve() for root in (settings().volume_root, EXAMPLES, *extra))


def allowed_file(location: str) -> Path:
    """The file at a path that a run was given, links followed.

    Args:
        location: absolute, or from the volume root; what is not there is looked for in the
            working folder.

    Raises:
        ForbiddenPathError: it lies outside the folders inputs may come from, or is no plain file.
        MissingFileError: there is no such file.
    """
    return _plain_file(_allowed(location), location, looked_in=settings().volume_root.resolve())


def allowed_folder(location: str) -> Path | None:
    """The folder at a path that a run was given, links followed; None where no folder is.

    Args:
        location: as in `allowed_file`.

    Raises:
        ForbiddenPathError: it lies outside the folders inputs may come from.
    """
    path = _allowed(location)
    return path if path.is_dir() else None


def _allowed(location: str) -> Path:
    if "://" in location:
        raise ForbiddenPathError(
            f"{_shown(location)} is an address, expected a file or the store: link of an artifact",
            "download the file and name it, or upload it",
        )
    path = _resolved(settings().volume_root / location)
    elsewhere = _resolved(Path(location))
    if not os.path.exists(path) and os.path.exists(elsewhere):
        path = elsewhere
    if not any(path.is_relative_to(root) for root in allowed_roots()):
        roots = ", ".join(str(root) for root in allowed_roots())
        raise ForbiddenPathError(
            f"{_shown(location)} lies outside the folders inputs may come from: {roots}",
            "move the file there, add its folder to SAFELIGHT_INPUT_ROOTS, or upload it",
        )
    return path


def upload_local(file: Path, kinds: tuple[MediaKind, ...] = ("image", "video", "audio")) -> str:
    """Keep a file that the person at this machine names; its `store:` link.

    Args:
        file: from the working folder.
        kinds: what it may hold.

    Raises:
        MissingFileError: there is no such file.
        ForbiddenPathError: it is a folder, device or pipe.
        InvalidMediaError: it holds no picture, video or sound.
    """
    path = _plain_file(_resolved(file), str(file), looked_in=Path.cwd())
    with opened_below(Path(path.anchor), path) as handle, named_handle(handle, path.name) as named:
        return keep_as_it_came(named, kinds).uri


def keep_as_it_came(path: Path, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Look into a file and keep its bytes, also those of an animation that is to be a video.

    The run that reads it makes a video of it, and says what was left aside.

    Args:
        path: a plain file that was opened safely.
        kinds: what it may hold.

    Raises:
        InvalidMediaError: it holds nothing of these kinds.
    """
    return _kept(path, _animation(path, kinds) or looked_into(path, kinds))


def keep_input(location: str, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Look into the file at a path that a run was given, and keep it.

    Args:
        location: see `allowed_file`.
        kinds: what it may hold.

    Raises:
        As `allowed_file` and `keep_media`.
    """
    with open_allowed(location) as (handle, path), named_handle(handle, path.name) as named:
        return keep_media(named, kinds)


@contextmanager
def open_allowed(location: str) -> Generator[tuple[int, Path]]:
    """A handle of the file at a path that a run was given, and the path, for its name alone.

    Raises:
        As `allowed_file`.
    """
    path = allowed_file(location)
    root = next(root for root in allowed_roots() if path.is_relative_to(root))
    with opened_below(root, path) as handle:
        yield handle, path


@contextmanager
def named_handle(handle: int, name: str) -> Generator[Path]:
    """A path to an open file for readers that take only paths."""
    with (
        current_store().workspace() as folder,
        path_of_handle(handle, name, Path(folder)) as path,
    ):
        yield path


def keep_media(path: Path, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Look into a file, whatever it is called, and keep it when it is what it should be.

    Args:
        path: a plain file.
        kinds: what it may hold.

    Raises:
        InvalidMediaError: empty, damaged, too large, or none of `kinds`.
    """
    if (animation := _animation(path, kinds)) is not None:
        return _as_video(animation)
    return _kept(path, looked_into(path, kinds))


def _kept(path: Path, found: "Found") -> ArtifactRef:
    return current_store().put(
        path if found.data is None else found.data,
        found.media_type,
        width=found.width,
        height=found.height,
        frames=found.frames,
        fps=found.fps,
        metadata=_remarks(found),
        pixels=found.pixels,
        folder="uploads",
    )


def find_stored(uri: str, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """The artifact behind a `store:` link.

    Raises:
        MissingFileError: nothing is stored there.
        ChecksumMismatchError: the stored bytes are damaged.
        ForbiddenPathError: the link leads out of uploads, outputs and characters.
        InvalidMediaError: it is none of `kinds`.
    """
    key = _ARTIFACT.fullmatch(uri.removeprefix(SCHEME))
    if key is None:
        raise ForbiddenPathError(
            f"{_shown(uri)} is neither an upload nor an output", "pass the link of an artifact"
        )
    store = current_store()
    named = ArtifactRef(
        uri=uri, sha256=key[1], media_type=_MEDIA_TYPES.get(key[2], "other/unknown"), bytes=0
    )
    path = store.fetch(named)
    if (animation := _animation(path, kinds)) is not None:
        return _as_video(animation)
    found = looked_into(path, kinds)
    ref = ArtifactRef(
        uri=uri,
        sha256=key[1],
        media_type=found.media_type,
        bytes=path.stat().st_size,
        width=found.width,
        height=found.height,
        frames=found.frames,
        fps=found.fps,
        metadata=_remarks(found),
    )
    if found.pixels is not None:
        store.remember(ref, found.pixels)
    return ref


@dataclass(frozen=True)
class Found:
    """What a file holds; `data` is what is kept in place of its own bytes."""

    media_type: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    data: bytes | None = None
    pixels: Pixels | None = None
    left_aside: tuple[str, ...] = ()
    timing: Timing | None = None


def _remarks(found: Found) -> dict[str, JsonValue]:
    """What stages note when they read it."""
    return {"left_aside": [*found.left_aside]} if found.left_aside else {}


def _animation(path: Path, kinds: tuple[MediaKind, ...]) -> Found | None:
    """An animated picture where only videos are taken."""
    if "video" not in kinds or "image" in kinds:
        return None
    with disk_errors(path), path.open("rb") as file:
        if still_format(file.read(HEAD)) is None:
            return None
    found = looked_into(path, ("image",))
    return found if found.timing is not None else None


def _as_video(found: Found) -> ArtifactRef:
    """An animated picture kept as a video of its very pixels."""
    timing, data = found.timing, found.data
    if timing is None or data is None:
        raise ValueError("no animation")
    aside = [*found.left_aside, f"how often it plays ({_often(timing.plays)})"]
    store = current_store()
    with store.workspace() as folder:
        target = Path(folder) / "frames.mkv"
        write_as_video(data, target, transparent=timing.transparent)
        info = probe(target)
        return store.put(
            target,
            info.media_type,
            width=info.width,
            height=info.height,
            frames=info.frames,
            fps=float(info.fps),
            metadata={"left_aside": list[JsonValue](aside)},
            folder="uploads",
        )


def _often(plays: int) -> str:
    return "without end" if plays == 0 else "once" if plays == 1 else f"{plays} times"


def looked_into(path: Path, kinds: tuple[MediaKind, ...]) -> Found:
    """What a file holds, if it is one of `kinds`; nothing is kept."""
    with disk_errors(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(HEAD)
    if size == 0:
        raise InvalidMediaError(
            f"{path.name} is empty (0 bytes), expected {' or '.join(kinds)}",
            "upload the file again",
        )
    if still_format(start) is not None:
        _require("image", kinds, path)
        with _file_named(path):
            return _still(path, size, start)
    if kinds == ("image",):
        with _file_named(path):
            inspect_image(start)  # says what was found
    if "audio" in kinds:
        try:
            return Found(look_into_sound(path))
        except InvalidMediaError:
            if "video" not in kinds:
                raise
    info = look_into_video(path)
    return Found(info.media_type, info.width, info.height, info.frames, float(info.fps))


@contextmanager
def _file_named(path: Path) -> Generator[None]:
    """Say in refusals of a picture which file it is."""
    try:
        yield
    except InvalidMediaError as error:
        raise InvalidMediaError(f"{path.name}: {error.problem}", error.remedy) from error


def _still(path: Path, size: int, start: bytes) -> Found:
    limit = settings().max_input_megapixels
    _require_proportion(size, limit * MEGAPIXEL, f"{limit} megapixels")
    with disk_errors(path), path.open("rb") as file:
        if size > FILE_BYTES and still_format(start) in ("PNG", "JPEG"):
            width, height = look_at_size(file.read(FILE_BYTES), limit)
            _require_proportion(size, width * height, f"{width}x{height} px")
            file.seek(0)
        data = file.read()
    facts, pixels = look_into_still(data, limit)
    height, width = pixels.shape[:2]
    timing = facts.timing
    return Found(
        facts.media_type,
        width,
        height,
        len(timing.lasts) if timing else None,
        timing.rate_fps if timing else None,
        data,
        pixels,
        facts.left_aside,
        timing,
    )


def _require_proportion(size: int, pixels: float, described: str) -> None:
    most = FILE_BYTES + BYTES_PER_PIXEL * pixels
    if size > most:
        raise InvalidMediaError(
            f"the file has {size / 2**20:.0f} MiB, at most {most / 2**20:.0f} MiB are taken for "
            f"{described}",
            "save the picture again without what is not pixels",
        )


def _require(found: MediaKind, kinds: tuple[MediaKind, ...], path: Path) -> None:
    if found not in kinds:
        raise InvalidMediaError(
            f"{path.name} holds {found}, expected {' or '.join(kinds)}",
            f"pass a file with {' or '.join(kinds)}",
        )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, characters of no file
        raise ForbiddenPathError(
            f"{_shown(str(path))} is no path ({type(error).__name__})", "correct the path"
        ) from error


def _plain_file(path: Path, location: str, looked_in: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        looked = "" if os.path.isabs(location) else f" (looked in {looked_in})"
        raise MissingFileError(
            f"there is no file {_shown(location)}{looked}", "correct the path"
        ) from error
    except OSError as error:
        raise ForbiddenPathError(
            f"{_shown(location)} cannot be looked at: {error.strerror}",
            "correct the path, or give this user the right to read there",
        ) from error
    if not S_ISREG(mode):
        raise ForbiddenPathError(
            f"{_shown(location)} is not a plain file", "name a picture, video or sound"
        )
    return path


def _shown(location: str) -> str:
    """What was given, short, and without characters that would break a line of a log."""
    short = location if len(location) <= 200 else f"{location[:200]}..."
    return short if short.isprintable() else repr(short)
