"""`safelight watch`: a folder of this machine that works by itself, until Ctrl-C."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from uuid import UUID

from pydantic import JsonValue

from safelight.cli.copies import Wanted, check_output, template_for
from safelight.cli.printing import show_line
from safelight.cli.runs import Session, session
from safelight.cli.server import configured_api_url
from safelight.client.runs import RunEnd
from safelight.errors import MissingFileError, PipelineError
from safelight.provenance.batches import BatchReport, load_report
from safelight.store.store import current_store
from safelight.watching.ledger import Ledger, watch_id
from safelight.watching.opening import S3, open_watched
from safelight.watching.watch import Original, Watch

LOG = logging.getLogger(__name__)
GATHERING, REQUESTS = "flows.batching.gathering", "flows.batching.requests"
"""Say what a flow takes; loaded by name, since the command sits below the flows."""
POLL_SECONDS = 2.0
AGAIN_SECONDS = 15.0
"""After a fault that may pass."""


@dataclass(frozen=True)
class Watched:
    """What a command was told."""

    folder: str
    flow: str
    to: str
    parameters: dict[str, JsonValue]
    """Of every request, files in the store."""
    options: dict[str, JsonValue]
    """Of the batches that run them: parallel, retries, shards."""
    names: str | None
    original: Original
    settle_seconds: float
    once: bool
    """End when nothing is left to do."""


def watch_folder(told: Watched) -> None:
    """Watch until Ctrl-C, or until nothing is left to do.

    Raises:
        PipelineError: the folder, the target, the template or the flow cannot be those; later only
            what does not pass by itself.
    """
    target = import_module(REQUESTS).find_target(told.flow)
    taken = import_module(GATHERING).media_field(target)
    folder, to = _absolute(told.folder), _absolute(told.to)
    template = template_for(Wanted(Path(to), told.names), told.flow)
    source, place = open_watched(folder, to, private=False)
    if not to.startswith(S3):
        check_output(Path(to))
    identity = watch_id(told.flow, told.parameters, to)
    show_line(f"watching {folder}; results go to {to} (Ctrl-C stops)")
    with session() as prefect:
        runs = _Runs(prefect, told, f"watch-{identity}")
        watch = Watch(
            source=source,
            place=place,
            ledger=Ledger(identity),
            takes=(taken.name, taken.kind),
            run=runs,
            template=template,
            original=told.original,
            settle_seconds=told.settle_seconds,
        )
        _go_on(watch, once=told.once)


def _absolute(location: str) -> str:
    return location if location.startswith(S3) else str(Path(location).resolve())


def _go_on(watch: Watch, *, once: bool) -> None:
    while True:
        try:
            look = watch.look()
        except PipelineError as error:
            if not error.transient or once:
                raise
            show_line(f"{error.code}: {error.problem}; looking again in {AGAIN_SECONDS:.0f} s")
            time.sleep(AGAIN_SECONDS)
            continue
        for each in look.told:
            show_line(f"{each.state} {each.name}: {each.text}")
        if once and not look.waiting:
            return
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Runs:
    """Runs requests as one batch, whose key makes each of them run once."""

    prefect: Session
    told: Watched
    key: str

    def __call__(self, requests: Sequence[tuple[str, dict[str, JsonValue]]]) -> BatchReport | None:
        lines = [json.dumps({"file_name": name, **values}) for name, values in requests]
        stored = current_store().put("\n".join(lines).encode(), "text/plain", folder="uploads")
        current_store().settle()
        parameters: dict[str, JsonValue] = {
            "flow": self.told.flow,
            "file": stored.uri,
            "parameters": self.told.parameters,
            "key": self.key,
            "allow_failures": True,
            **self.told.options,
        }
        if configured_api_url() is None:
            parameters["where"] = "here"
        outcome = self.prefect.run("batch", parameters)
        if outcome.interrupted:
            raise KeyboardInterrupt
        return _report(outcome, outcome.flow_run.id)


def _report(outcome: RunEnd, run: UUID) -> BatchReport | None:
    try:
        return load_report(run)
    except MissingFileError:
        show_line(outcome.message)
        return None
