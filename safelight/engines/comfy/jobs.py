"""One prompt on a ComfyUI server: sent once, found again, cancelled alone."""

import itertools
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import JsonValue

from safelight.engines.comfy.refusals import failure, refused
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph
from safelight.errors import (
    ContractMismatchError,
    EngineOfflineError,
    EngineTimeoutError,
    MissingFileError,
    PipelineError,
    UnknownError,
)
from safelight.progress import note, pause

Where = Literal["pending", "running", "done", "gone"]
NAMESPACE = uuid.UUID("6f1d7c0e-3c7b-5a54-9c0b-3f6f0f6a5b1e")
"""Ids of prompts are drawn from names of jobs in it."""
SENT_AT_MOST = 3
"""Times that a prompt is sent which never arrived."""
ARRIVES = (0.5, 1.0, 2.0)
"""Seconds after which a server that took a prompt without an answer shows it."""
CANCELS = (0, 26, 0)
"""Version that has a call for cancelling one job."""


@dataclass(frozen=True)
class Found:
    """Where a prompt is."""

    where: Where
    """gone: neither in the queue nor in the history."""
    history: Mapping[str, object]
    """Its entry there, once it is done."""


def job_ids(job: str) -> "itertools.chain[str]":
    """Ids for the prompts of a job: the same job has the same, in the same order."""
    return itertools.chain(
        str(uuid.uuid5(NAMESPACE, f"{job}/{attempt}")) for attempt in range(1000)
    )


def find(server: Server, prompt_id: str) -> Found:
    """Where a prompt is; asked three times at most, so that it cannot slip from one to the other.

    Raises:
        PipelineError: as `Server.answer`.
    """
    done = _history(server, prompt_id)
    if done is not None:
        return Found("done", done)
    where = _in_queue(server, prompt_id)
    if where is not None:
        return Found(where, {})
    done = _history(server, prompt_id)
    return Found("gone", {}) if done is None else Found("done", done)


def begun(server: Server, job: str) -> tuple[str, Found]:
    """The id under which a job runs or has run well; else the one to send it under.

    Raises:
        PipelineError: as `find`.
    """
    for prompt_id in job_ids(job):
        found = server.patiently(lambda known=prompt_id: find(server, known))
        if found.where != "done" or failure(server, {}, found.history) is None:
            return prompt_id, found
    raise ContractMismatchError(
        f"ComfyUI at {server.url} has failed with this work too often", "restart that ComfyUI"
    )


def submit(server: Server, graph: Graph, sent: JsonValue, prompt_id: str) -> None:
    """Put a prompt into the server's queue, once.

    A question whose answer is lost may have arrived: the prompt is then looked for, and sent
    again only where it is not there.

    Args:
        server: where.
        graph: what is sent, for messages.
        sent: the same as JSON.
        prompt_id: our own id for it.

    Raises:
        PipelineError: the server refuses the workflow, or is away.
    """
    body = {"prompt": sent, "client_id": prompt_id, "prompt_id": prompt_id}
    for left in reversed(range(SENT_AT_MOST)):
        try:
            with server.asked("POST", "/prompt", cast("JsonValue", body)) as response:
                if response.status_code == 400:
                    raise refused(server, graph, server.object_in(response, "/prompt"))
                server.require_good(response, "/prompt")
                answer = server.object_in(response, "/prompt")
        except (EngineOfflineError, EngineTimeoutError):
            if _arrived(server, prompt_id):
                note("the answer to the workflow was lost; it was found in ComfyUI's queue")
                return
            if not left:
                raise
            continue
        if answer.get("prompt_id") != prompt_id:
            raise ContractMismatchError(
                f"ComfyUI at {server.url} does not take our id for a prompt",
                "look at SAFELIGHT_COMFY_URL: something between may change what is sent",
            )
        if answer.get("node_errors"):  # it would leave out a part without a word
            cancel(server, prompt_id)
            raise refused(server, graph, answer)
        return


def cancel(server: Server, prompt_id: str, version: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Take one prompt from the server, whether it waits or runs; nobody else's.

    Raises:
        PipelineError: the server is away.
    """
    if version >= CANCELS:
        with suppress(MissingFileError, ContractMismatchError):  # a server that has lost the call
            server.answer("POST", f"/api/jobs/{prompt_id}/cancel", {})
            return
    for _ in range(3):  # it may begin to run in between
        where = _in_queue(server, prompt_id)
        if where is None:
            return
        if where == "running":  # servers from 0.3.64 on interrupt no other than the one named
            server.answer("POST", "/interrupt", {"prompt_id": prompt_id})
            return
        server.answer("POST", "/queue", {"delete": [prompt_id]})


def lost(server: Server, prompt_id: str, *, restarted: bool) -> PipelineError:
    """Why a prompt that was in the queue is nowhere any more."""
    if restarted:
        return EngineOfflineError(
            f"ComfyUI at {server.url} was restarted and has forgotten prompt {prompt_id}",
            "look into its log; the run can be started again",
        )
    return UnknownError(
        f"somebody has taken prompt {prompt_id} out of the queue of ComfyUI at {server.url}",
        "start the run again if it is still wanted",
    )


def _arrived(server: Server, prompt_id: str) -> bool:
    for wait in (*ARRIVES, 0.0):
        if server.patiently(lambda: find(server, prompt_id)).where != "gone":
            return True
        pause(wait)
    return False


def _history(server: Server, prompt_id: str) -> Mapping[str, object] | None:
    entry = server.answer("GET", f"/history/{prompt_id}").get(prompt_id)
    return cast("dict[str, object]", entry) if isinstance(entry, dict) else None


def _in_queue(server: Server, prompt_id: str) -> Literal["pending", "running"] | None:
    queue = server.answer("GET", "/queue")
    places: tuple[tuple[str, Literal["pending", "running"]], ...] = (
        ("queue_running", "running"),
        ("queue_pending", "pending"),
    )
    for name, where in places:
        items = queue.get(name)
        for item in cast("list[object]", items) if isinstance(items, list) else ():
            if isinstance(item, list) and prompt_id in cast("list[object]", item)[1:2]:
                return where
    return None
