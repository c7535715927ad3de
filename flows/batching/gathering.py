"""Folders and zips of pictures or clips: found, checked and put into the store, by their content.

A run is given them by a path that it may read; a command, by a path of the machine that it runs on.
Both make the same requests of them.
"""

import json
import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from flows.batching.reading.archives import starts_as_zip, zip_members
from flows.batching.reading.files import opened_file
from flows.batching.reading.folder_members import folder_members
from flows.batching.reading.folders import Gathered, MediaField, gather_rows
from flows.batching.reading.members import LeftAside, Members, printable
from flows.batching.reading.rows import FILE_NAME, Row
from flows.batching.requests import Request, check_requests, find_target
from flows.batching.spreading import SEED
from flows.running.checking import RecordedFlow
from flows.running.inputs import Media, media_parameters
from flows.running.signature import parameters_model
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.store.artifact import MediaKind
from safelight.store.disk import disk_errors
from safelight.store.inputs import allowed_folder, allowed_roots
from safelight.store.store import SCHEME, current_store

KINDS: Mapping[str, MediaKind] = {"image": "image", "video": "video"}
"""Names of the parameters that take one file, to what they take."""


@dataclass(frozen=True)
class FolderRequests:
    """What a folder or zip of this machine asks for."""

    requests: Sequence[Request]
    """Checked by their flow."""
    left_aside: Sequence[LeftAside]
    """Files that take no part."""
    lines: bytes
    """The requests as a file, their pictures in the store; empty where nothing was kept."""


def media_field(target: RecordedFlow[...]) -> MediaField:
    """The one parameter of a flow that takes a picture or clip.

    Raises:
        ContractMismatchError: it has none, or several.
    """
    found = media_parameters(target.fn)
    one = next(iter(found)) if len(found) == 1 else ""
    if one not in KINDS or found[one] != Media:
        what = f"takes {', '.join(found)}" if found else "takes no picture or video"
        raise ContractMismatchError(
            f"{target.name} {what}; the files of a folder go into one image or video",
            "name a flow with one such parameter, or write a table that names the files",
        )
    return MediaField(target.name, one, KINDS[one])


def gather_given(
    location: str,
    target: RecordedFlow[...],
    shared: Mapping[str, JsonValue],
    *,
    sheet: str | None,
    read_prompts: bool,
) -> tuple[list[Row], Sequence[LeftAside]] | None:
    """The requests of a folder or zip that a run was given, their files put into the store.

    Args:
        location: under the folders that inputs may come from, or the store: link of a zip.
        target: the flow that will run them.
        shared: parameters of every request.
        sheet: of a spreadsheet, so that it must be none here.
        read_prompts: as in `gather_rows`; so that it must be a folder or zip.

    Returns:
        The requests and what was left aside; None when it is neither folder nor zip.

    Raises:
        PipelineError: as `gather_rows` and `check_requests` say, before anything is kept.
    """
    with _given_members(location) as members:
        _check_options(members, sheet, read_prompts=read_prompts)
        if members is None:
            return None
        gathered, _ = _checked(members, target, shared, read_prompts=read_prompts)
        rows = gathered.kept()
    current_store().settle()  # workers elsewhere look for them
    return rows, gathered.left_aside


def gather_local(
    path: Path,
    flow: str,
    shared: Mapping[str, JsonValue],
    *,
    sheet: str | None,
    read_prompts: bool,
    keep: bool,
) -> FolderRequests | None:
    """The requests of a folder or zip that the person at this machine names; None for other files.

    Args:
        path: from the working folder.
        flow: that will run them.
        shared: parameters of every request.
        sheet: of a spreadsheet, so that it must be none here.
        read_prompts: as in `gather_rows`; so that it must be a folder or zip.
        keep: put the files into the store; else nothing is changed.

    Raises:
        PipelineError: as `gather_rows` and `check_requests` say, before anything is kept.
    """
    with _local_members(path) as members:
        _check_options(members, sheet, read_prompts=read_prompts)
        if members is None:
            return None
        target = find_target(flow)
        gathered, requests = _checked(members, target, shared, read_prompts=read_prompts)
        lines = _lines(gathered, requests) if keep else b""
    return FolderRequests(requests, gathered.left_aside, lines)


def _check_options(members: Members | None, sheet: str | None, *, read_prompts: bool) -> None:
    if members is None and read_prompts:
        raise InvalidFieldValueError(
            "read_prompts is true, and the file is no folder or zip of pictures",
            "leave out read_prompts",
        )
    if members is not None and sheet is not None:
        raise InvalidFieldValueError(
            f"sheet is {sheet!r}, and {members.title} is no spreadsheet", "leave out sheet"
        )


def _checked(
    members: Members,
    target: RecordedFlow[...],
    shared: Mapping[str, JsonValue],
    *,
    read_prompts: bool,
) -> tuple[Gathered, list[Request]]:
    names: Collection[str] = parameters_model(target.fn).model_fields
    field = media_field(target)
    if field.name in shared:
        raise ContractMismatchError(
            f"{field.name} is given for all requests, and each has its own in {members.title}",
            f"leave out {field.name}",
        )
    gathered = gather_rows(members, field, names, read_prompts=read_prompts)
    return gathered, check_requests(target, gathered.rows, shared)


@contextmanager
def _given_members(location: str) -> Generator[Members | None]:
    folder = None if location.startswith(SCHEME) else allowed_folder(location)
    if folder is not None:
        below = next(root for root in allowed_roots() if folder.is_relative_to(root))
        yield folder_members(folder, below)
        return
    with opened_file(location) as (handle, path), _zip(handle, path) as members:
        yield members


@contextmanager
def _local_members(path: Path) -> Generator[Members | None]:
    if path.is_dir():
        yield folder_members(path.resolve())
    elif path.is_file():
        with disk_errors(path), path.open("rb") as file, _zip(file.fileno(), path) as members:
            yield members
    else:
        yield None


@contextmanager
def _zip(handle: int, path: Path) -> Generator[Members | None]:
    with os.fdopen(os.dup(handle), "rb") as file:
        start = file.read(4)
        file.seek(0)
    if not starts_as_zip(start):
        yield None
        return
    with zip_members(handle, printable(path.name)) as members:
        yield members


def _lines(gathered: Gathered, requests: Sequence[Request]) -> bytes:
    """A file of requests, one a line, each with the name of its file and values of its own."""
    written: list[str] = []
    rows = gathered.kept()
    for request in requests:
        row = rows[request.row]
        names = [*row.values, *([SEED] if request.spread and SEED not in row.values else [])]
        own = {name: request.parameters[name] for name in names}
        file = {gathered.field.name: row.values[gathered.field.name]}
        written.append(json.dumps({FILE_NAME: request.where, **own, **file}))
    return "\n".join(written).encode()
