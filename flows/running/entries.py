"""Stages of a run as its manifest lists them."""

from collections.abc import Sequence
from typing import cast

from pydantic import JsonValue

from safelight.provenance.manifest import Failure, StageEntry
from safelight.weights.used import licence_remarks
from tasks.base.recorder import StageFacts


def stage_entries(recorded: Sequence[StageFacts]) -> tuple[StageEntry, ...]:
    """The entries of all stages that have ended by now; others may be entered meanwhile."""
    done = [*recorded]
    licences = {w: licence_remarks(w) for w in {facts.identity.weights for facts in done}}
    return tuple(_entry(facts, licences[facts.identity.weights]) for facts in done)


def _entry(facts: StageFacts, licences: tuple[str, ...]) -> StageEntry:
    first = facts.results[0].metadata if facts.results else {}
    return StageEntry(
        name=facts.name,
        stage_type=facts.stage_type,
        status=facts.status,
        parameters=facts.parameters,
        sources=tuple(ref.sha256 for ref in facts.sources),
        results=facts.results,
        engine=facts.identity,
        passed_over=facts.passed_over,
        origin=facts.origin,
        seconds=cast(float, first.get("seconds", 0.0)),
        peak_bytes=cast(int, first.get("peak_bytes", 0)),
        gpu_peak_bytes=cast(int, first.get("gpu_peak_bytes", 0)),
        notes=tuple(str(note) for note in cast("list[JsonValue]", first.get("notes", []))),
        licences=licences,
        charges=facts.charges,
        error=None if facts.error is None else Failure.of(facts.error),
    )
