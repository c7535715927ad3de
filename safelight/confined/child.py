"""The confined process: makes one call after the other, each within its limits.

It holds no key and no password: its environment is what `safelight.confined.calling` hands on.
"""

import importlib
import resource
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from safelight.confined.limits import Limits, limit_this_process
from safelight.confined.transport import Array, close, content_of, receive, send, shared
from safelight.errors import PipelineError

TRACE_CHARACTERS = 4000


class Request(BaseModel):
    """A call that is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    """Of ours."""
    function: str
    """Name of a function in it, which returns what it found and an array or None."""
    given: list[JsonValue]
    """Its arguments; bytes that come as an open file stand before them."""
    limits: Limits
    """For this call."""


@cache
def answer_type(function: Callable[..., object]) -> TypeAdapter[Any]:
    """How what a function finds is written as JSON and read again."""
    return TypeAdapter(get_args(get_type_hints(function)["return"])[0])


def serve(parent: socket.socket) -> None:
    """Make calls until the parent is gone."""
    while True:
        try:
            asked, handle = receive(parent)
        except EOFError:
            return
        try:
            answer, array = _answered(Request.model_validate(asked), handle)
        finally:
            close(handle)
        beside: int | None = None
        try:
            beside = None if array is None else shared(array)
        except (OSError, MemoryError) as error:
            answer = _broken(f"its result is too large ({error})")
        try:
            send(parent, answer, beside)
        finally:
            close(beside)


def _answered(request: Request, handle: int | None) -> tuple[dict[str, JsonValue], Array | None]:
    try:
        function = getattr(importlib.import_module(request.module), request.function)
        told = answer_type(function)
        limit_this_process(request.limits)
        given = request.given if handle is None else [content_of(handle), *request.given]
        found, array = function(*given)
        answer: dict[str, JsonValue] = {"found": told.dump_python(found, mode="json")}
        if array is not None:
            answer |= {"kind": str(array.dtype), "shape": list(array.shape)}
    except PipelineError as error:
        return {"refused": [type(error).__name__, error.problem, error.remedy]}, None
    except MemoryError:
        return _broken("memory"), None
    except Exception as error:  # noqa: BLE001  (an edge: a decoder may raise anything)
        trace = traceback.format_exc()[-TRACE_CHARACTERS:]
        return _broken(_said(error)[:500], trace), None
    return answer, array


def _said(error: Exception) -> str:
    """What an error says, or where it came up when it says nothing, as an assertion does."""
    kind, text = type(error).__name__, str(error)
    if text:
        return f"{kind}: {text}"
    deepest = traceback.extract_tb(error.__traceback__)[-1]
    return f"{kind} in {deepest.name} of {Path(deepest.filename).stem}"


def _broken(how: str, trace: str = "") -> dict[str, JsonValue]:
    return {"broken": how, "trace": trace}


def main() -> None:
    """Entry point: `python -m safelight.confined.child HANDLE`."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(KeyboardInterrupt), socket.socket(fileno=int(sys.argv[1])) as parent:
        serve(parent)


if __name__ == "__main__":
    main()
