"""Results of providers: fetched within limits, whole, of the type they should have, looked into."""

import base64
import binascii
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from safelight.engines.remote.jobs import Calls, Fetching, Wanted, run_job
from safelight.engines.remote.patience import patiently
from safelight.errors import (
    DiskFullError,
    DownloadFailedError,
    EngineOfflineError,
    InvalidMediaError,
)
from safelight.media.fitting import resized
from safelight.media.inspection import look_into_still, look_into_video
from safelight.media.layers import on_white
from safelight.pixels import Pixels
from safelight.progress import StopRequestedError, note, stop_requested
from safelight.settings import settings
from safelight.store.disk import disk_errors
from safelight.store.store import current_store
from safelight.weights.asking import PassingError, Web

Kind = Literal["image", "video"]
TYPES: dict[Kind, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/webp"),
    "video": ("video/mp4", "video/webm", "video/quicktime"),
}
UNNAMED = ("application/octet-stream", "binary/octet-stream", "")
"""Types that say nothing: what the bytes are is looked at in any case."""
LARGEST: dict[Kind, int] = {"image": 256 * 2**20, "video": 2 * 2**30}
"""Bytes of one result."""
LEFT_FREE = 64 * 2**20
"""Bytes that a result leaves on the disk."""
GONE = (401, 403, 404, 410)
"""A link that does not lead to the result any more."""
FRESH_LINKS = 3
"""Times that a provider is asked for a result's address anew."""


@dataclass(frozen=True)
class Source:
    """Where results of a provider come from."""

    provider: str
    """For messages."""
    own: str
    """Scheme and host of the provider as the settings name it: it alone may lie inside."""


def own_of(url: str) -> str:
    """Scheme and host of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _ExpiredError(Exception):
    """The address does not lead to the result any more."""


def fetched(job: Fetching, source: Source, kind: Kind, folder: Path) -> tuple[Path, ...]:
    """Wait for a job, and fetch all that it made.

    Args:
        job: the job.
        source: whose it is.
        kind: what it makes.
        folder: where the files go.

    Raises:
        DownloadFailedError: it broke off too often, or its address leads nowhere.
        ForbiddenPathError: its address leads into a private network.
        InvalidMediaError: it is too large, or no such thing.
        PipelineError: as `Fetching.finished`.
    """
    for _ in range(FRESH_LINKS):
        looked = job.finished()
        if not looked.files:
            raise DownloadFailedError(
                f"{job.shown} is done, and names no result", "look at the provider's page of it"
            )
        try:
            return tuple(
                _fetched(place, source, kind, folder / f"{number:04}", job.shown)
                for number, place in enumerate(looked.files)
            )
        except _ExpiredError:
            note(f"{job.shown}: the address of its result had expired; it was asked for anew")
    raise DownloadFailedError(
        f"the addresses of the result of {job.shown} lead nowhere",
        "run it again: it goes on with the same job",
    )


def picture_of(
    calls: Calls, wanted: Wanted, source: Source, size: tuple[int, int] | None
) -> Pixels:
    """Have a provider make a picture: (H, W, 3) uint8 sRGB.

    Args:
        calls: how the provider is asked.
        wanted: what for.
        source: whose results they are.
        size: width and height that it should have; another is resized, and a note says so.

    Raises:
        PipelineError: as `run_job` and `fetched`.
    """
    with current_store().workspace() as folder:
        paths = run_job(calls, wanted, lambda job: fetched(job, source, "image", Path(folder)))
        return _pixels(paths[0], size, source.provider)


def _pixels(path: Path, size: tuple[int, int] | None, who: str) -> Pixels:
    try:
        _, decoded = look_into_still(path.read_bytes(), settings().max_input_megapixels)
    except InvalidMediaError as error:
        raise InvalidMediaError(f"{who} gave no picture: {error.problem}", error.remedy) from error
    pixels = on_white(decoded)
    if size is None or (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    note(
        f"{who} drew {pixels.shape[1]}x{pixels.shape[0]} px, {size[0]}x{size[1]} were asked for: "
        "resized"
    )
    return resized(pixels, *size)


def _fetched(place: str, source: Source, kind: Kind, target: Path, shown: str) -> Path:
    if place.startswith("data:"):
        _unpack(place, kind, target, source)
    else:
        try:
            patiently(lambda: _download(place, source, kind, target, shown))
        except EngineOfflineError as error:
            raise DownloadFailedError(error.problem, error.remedy) from error
    if kind == "video":
        try:
            look_into_video(target)
        except InvalidMediaError as error:
            raise InvalidMediaError(
                f"{source.provider} gave no video: {error.problem}", error.remedy
            ) from error
    return target


def _unpack(place: str, kind: Kind, target: Path, source: Source) -> None:
    head, _, packed = place.partition(",")
    _require_type(head.removeprefix("data:").partition(";")[0], kind, source)
    try:
        content = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidMediaError(
            f"{source.provider} gave a result that is no base64", "run it again"
        ) from error
    with disk_errors(target):
        target.write_bytes(content)


@lru_cache(maxsize=1)
def _web() -> Web:
    return Web()


def outside_alone(url: str, source: Source, shown: str) -> None:
    """Refuse an address that a provider names and that leads inside; see `Web`."""
    _web().require_outside(url, source.own, shown)


def _download(place: str, source: Source, kind: Kind, target: Path, shown: str) -> None:
    """Fetch one result, from its beginning.

    Raises:
        EngineOfflineError: it broke off, or its server has a fault.
    """
    named = f"the result of {shown}"
    try:
        with _web().asked(place, None, {}, named, own=source.own) as response:
            _require_there(response, named)
            _require_type(response.headers.get("content-type", ""), kind, source)
            _write(response, source, kind, target)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, PassingError | httpx.HTTPError):
            raise EngineOfflineError(
                f"{named} broke off ({type(error).__name__})",
                "run it again: it goes on with the same job",
            ) from error
        raise


def _require_there(response: httpx.Response, named: str) -> None:
    status = response.status_code
    if status in GONE:
        raise _ExpiredError
    if status != HTTPStatus.OK:
        passes = response.is_server_error or status in (408, 425, 429)
        raise (EngineOfflineError if passes else DownloadFailedError)(
            f"{named}: its server answers {status}", "run it again: it goes on with the same job"
        )


def _write(response: httpx.Response, source: Source, kind: Kind, target: Path) -> None:
    told = response.headers.get("content-length", "")
    length = int(told) if told.isdigit() else 0
    _require_size(length, source, kind)
    free = shutil.disk_usage(target.parent).free
    if length + LEFT_FREE > free:
        raise DiskFullError(
            f"{length} bytes are to come and {free} are free in {target.parent}",
            "free space, then run it again: it goes on with the same job",
        )
    size = 0
    with disk_errors(target), target.open("wb") as file:
        for piece in _pieces(response):
            if stop_requested():
                raise StopRequestedError("stopped while a result was fetched")
            size += len(piece)
            _require_size(size, source, kind)
            file.write(piece)


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidMediaError("the result comes packed", "run it again")
    return response.iter_raw()


def _require_size(size: int, source: Source, kind: Kind) -> None:
    if size > LARGEST[kind]:
        raise InvalidMediaError(
            f"{source.provider} gives a result of more than {LARGEST[kind] // 2**20} MiB",
            "ask for something smaller",
        )


def _require_type(told: str, kind: Kind, source: Source) -> None:
    found = told.partition(";")[0].strip().lower()
    if found not in (*TYPES[kind], *UNNAMED):
        raise InvalidMediaError(
            f"{source.provider} gives {found[:60]}, expected {', '.join(TYPES[kind])}",
            "look at the provider's page of the job",
        )
