"""Flows that other flows call as parts of themselves, each with a record of its own."""

from importlib import import_module
from typing import Any, cast
from uuid import uuid4

from prefect.client.schemas.objects import State
from pydantic import JsonValue

from flows.running.checking import RecordedFlow
from flows.running.recorded import run_inline
from flows.running.signature import renamed
from safelight.client.contracts import module_of
from safelight.engines.work import payer, paying
from safelight.errors import ContractMismatchError, MissingFileError, PipelineError
from safelight.progress import StopRequestedError
from safelight.provenance.endings import failure_in
from safelight.provenance.manifest import MANIFESTS, Failure, Manifest, load_manifest
from tasks.base.inline import is_inline
from tasks.base.recorder import recorder


class PartFailedError(PipelineError):
    """Parts failed of which nothing is left but what they said. Its code is that of a part."""

    def __init__(
        self, problem: str, remedy: str | None = None, code: str = PipelineError.code
    ) -> None:
        super().__init__(problem, remedy)
        self.code = code
        self.args = (*self.args, code)  # positional: survives pickling

    @classmethod
    def of(cls, failure: Failure) -> "PartFailedError":
        """The error that a part told."""
        return cls(failure.problem, failure.remedy, failure.code)


def flow_named(name: str) -> RecordedFlow[...]:
    """The flow of a module below `flows` that has its name.

    Raises:
        ContractMismatchError: there is none.
    """
    try:
        found = getattr(import_module(module_of(name)), name) if name.isidentifier() else None
    except (ModuleNotFoundError, AttributeError):
        found = None
    if not isinstance(found, RecordedFlow):
        raise ContractMismatchError(
            f"there is no flow {name[:80]!r} in this version", "name a run of another flow"
        )
    return found


def call_part(flow: RecordedFlow[...], part: str, parameters: dict[str, JsonValue]) -> Manifest:
    """Run a flow as a part of the one that runs now, whose manifest lists the part's stages too.

    Args:
        flow: the flow.
        part: names it within the whole.
        parameters: as it takes them.

    Returns:
        The manifest that it left.

    Raises:
        StopRequestedError: it was asked to stop.
        PipelineError: how it failed.
    """
    with paying(payer() or recorder().run_id):
        return _called(flow, part, parameters)


def _called(flow: RecordedFlow[...], part: str, parameters: dict[str, JsonValue]) -> Manifest:
    if is_inline():
        manifest = run_inline(flow, parameters, str(uuid4()), recorder().report or _unheard)
        _enter(part, manifest)
        if manifest.error is not None:
            raise PartFailedError.of(manifest.error)
        return manifest
    state = cast("State[Any]", renamed(flow, part)(**parameters, return_state=True))
    left = _left(state)
    if left is not None:
        _enter(part, left)
    if state.is_cancelled():
        raise StopRequestedError(state.message or f"{part} was asked to stop")
    if left is not None and state.is_completed():
        return left
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, PipelineError):
        raise outcome
    raise PartFailedError.of(failure_in(state.message or state.name or ""))


def _left(state: State[Any]) -> Manifest | None:
    """The manifest of a run; None where it left none."""
    try:
        return load_manifest(f"{MANIFESTS}{state.state_details.flow_run_id}.json")
    except MissingFileError:
        return None


def _enter(part: str, manifest: Manifest) -> None:
    """List a part's stages, and say in the run's answer which run it was."""
    recorder().parts_done += 1
    recorder().part_stages += [
        entry.model_copy(update={"name": f"{part}.{entry.name}"}) for entry in manifest.stages
    ]
    parts = cast("list[JsonValue]", recorder().answer.setdefault("parts", []))
    parts.append({"part": part, "flow": manifest.flow, "flow_run_id": manifest.flow_run_id})


def _unheard(stage: str, done: int, total: int) -> None:
    del stage, done, total
