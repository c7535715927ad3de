"""Prefect's result records in our store, so a cached stage is found by any machine that sees it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn, cast

from prefect.context import TaskRunContext
from prefect.exceptions import ObjectAlreadyExists
from prefect.filesystems import WritableFileSystem
from prefect.utilities.asyncutils import run_sync_in_worker_thread
from pydantic import JsonValue

from safelight import errors
from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME, current_store

RESULTS = "safelight-results/store"
"""Slug of the one saved block; flows and stages name it, workers load it from the server."""
PREFIX = "cache/results/"
REGISTERING = 3
"""Steps of registering; each finds what another process has made the next time."""
REFERENCE = f"{ArtifactRef.__module__}.{ArtifactRef.__qualname__}"
"""What a stage gives, one or a list of them, as Prefect's JSON names it."""
RUN_RESULT = "safelight.provenance.manifest.RunResult"
"""What a flow gives; the layer above defines it."""
ERRORS = {
    f"{found.__module__}.{found.__qualname__}"
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, errors.PipelineError)
}
"""What a flow that failed ends with."""
_CLASS, _ERROR = "__class__", "__exc_type__"


class SafelightResults(WritableFileSystem):
    """Result storage over whichever store the settings of the process name; holds no secret."""

    _block_type_name = "Safelight results"
    _block_type_slug = "safelight-results"
    _description = "Keeps task results in the Safelight store, a folder or an S3 bucket."

    def read_path(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, path: str, *, _sync: bool = True
    ) -> bytes:
        """The record under a cache key.

        Raises:
            ValueError: there is none, it is not a result of a stage or flow, or a file it names
                is gone or cut short; Prefect reads that as "not cached" and runs the stage again.
        """
        try:
            content = current_store().read_record(PREFIX + path)
        except MissingFileError as error:
            raise ValueError(str(error)) from error
        content = as_ours(path, content)
        for key, size in named_artifacts(content):
            try:
                held = current_store().holds(key, size)
            except ForbiddenPathError:  # no key of ours
                held = False
            if not held:
                raise ValueError(f"record {path} names {key}, which is gone or cut short")
        return content

    def write_path(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, path: str, content: bytes, *, _sync: bool = True
    ) -> None:
        """Keep a record, after every artifact put before it is durable.

        That of a stage goes in the background; that of a flow is durable on return, so that no
        run is called completed whose result a crash could still take away.
        """
        current_store().write_record(PREFIX + path, content)
        if TaskRunContext.get() is None:
            current_store().settle()

    async def aread_path(self, path: str) -> bytes:
        """`read_path` for Prefect's asynchronous callers."""
        return await run_sync_in_worker_thread(self.read_path, path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """`write_path` for Prefect's asynchronous callers."""
        await run_sync_in_worker_thread(self.write_path, path, content)


def as_ours(path: str, content: bytes) -> bytes:
    """The record with its result alone, and a head of our own.

    A record's head names a serializer, pickle too, and its result classes to import. Prefect
    follows both, so whoever writes to the store could run code. Only the types of results that
    stages and flows give get through, and the head is never that of the record.

    Args:
        path: the record's key, for the new head.
        content: as the store has it; Prefect keeps the error of a run without a head.

    Raises:
        ValueError: not a result that a stage or a flow gives.
    """
    try:
        outer = json.loads(content, parse_constant=_no_number)
        result = outer
        if _ERROR not in outer:
            result = json.loads(outer["result"], parse_constant=_no_number)
        if TaskRunContext.get() is None and _is_error(result):  # that of a flow; stages keep none
            return _with_head(path, result)
        _require_known(result)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"record {path} is not a result of a stage or flow: {error}") from error
    return _with_head(path, result)


def _with_head(path: str, result: JsonValue) -> bytes:
    head = {"storage_key": path, "serializer": {"type": "json"}}
    return json.dumps({"metadata": head, "result": json.dumps(result)}).encode()


def _is_error(result: JsonValue) -> bool:
    """Whether it is one of our errors, which have a message alone."""
    return (
        isinstance(result, dict)
        and result.keys() == {_ERROR, "message"}
        and isinstance(result["message"], str)
        and isinstance(result[_ERROR], str)
        and result[_ERROR] in ERRORS
    )


def _require_known(result: JsonValue) -> None:
    """Refuse anything but references and results of runs, at their places."""
    for value in result if isinstance(result, list) else [result]:
        if not isinstance(value, dict) or value.keys() != {_CLASS, "data"}:
            raise ValueError("a value without its type")
        kind, data = value[_CLASS], value["data"]
        if kind == REFERENCE:
            ArtifactRef.model_validate(data)
        elif kind != RUN_RESULT or isinstance(result, list) or not isinstance(data, dict):
            raise ValueError(f"it names the type {kind!r:.80}")
        _require_plain(data)


def _require_plain(data: JsonValue) -> None:
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if _CLASS in value or _ERROR in value:
                raise ValueError("a type inside of a value")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(cast("list[JsonValue]", value))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def named_artifacts(content: bytes) -> Iterator[tuple[str, int]]:
    """Key and size of each artifact that a result record names."""
    try:
        outer = json.loads(content)
        waiting = [json.loads(outer["result"])]
    except (ValueError, KeyError, TypeError):
        return  # no record of a stage
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            uri, size = value.get("uri"), value.get("bytes")
            if isinstance(uri, str) and uri.startswith(SCHEME) and isinstance(size, int):
                yield uri.removeprefix(SCHEME), size
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def register_results() -> None:
    """Save the block on the Prefect server; harmless when it is there already.

    Several processes may do so at once, also through servers of their own on one database.
    """
    for _ in range(REGISTERING):
        with suppress(ObjectAlreadyExists):  # another process was faster at one of the steps
            return _register()
    return _register()


def _register() -> None:
    SafelightResults.register_type_and_schema()
    SafelightResults().save(RESULTS.split("/", 1)[1], overwrite=True)
