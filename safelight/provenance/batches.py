"""How a batch of runs went, request by request, as people and programs read it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from safelight.prompts.unfolded import Unfolded
from safelight.provenance.manifest import Failure, ManifestUnreadableError
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

REPORTS = "outputs/batches/"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchOutcome(_Frozen):
    """What became of one request."""

    number: int
    """From 1."""
    where: str
    """Line, request or cell."""
    state: Literal["succeeded", "failed", "crashed", "cancelled"]
    """How its run ended."""
    flow_run_id: str = ""
    """Its run; empty when the server refused to create one."""
    seconds: float = 0.0
    """How long the run took."""
    reused: bool = False
    """An earlier run of the same batch had finished it."""
    results: tuple[ArtifactRef, ...] = ()
    """What the last stage of the run made."""
    cost_usd: float = 0.0
    """What its calls to providers cost."""
    unfolded: tuple[Unfolded, ...] = ()
    """Its prompts that held choices, with the words that were drawn."""
    error: Failure | None = None
    """Why it did not succeed."""


class BatchReport(_Frozen):
    """How a batch went; kept in the store as JSON."""

    flow_run_id: str
    """Of the batch itself."""
    flow: str
    """What each request ran."""
    batch: str
    """Names the batch; the same name finds its runs again."""
    ran: Literal["workers", "here"]
    """On workers, or one by one in the process of the batch."""
    requests: int
    """How many there are."""
    outcomes: tuple[BatchOutcome, ...] = ()
    """Of the requests that ended, in their order."""

    def counts(self) -> dict[str, JsonValue]:
        """How many requests ended in which way."""
        states = [outcome.state for outcome in self.outcomes]
        spent = round(sum(o.cost_usd for o in self.outcomes if not o.reused), 6)
        return {
            "requests": self.requests,
            "succeeded": states.count("succeeded"),
            "failed": states.count("failed") + states.count("crashed"),
            "cancelled": states.count("cancelled"),
            "unfinished": self.requests - len(states),
            "reused": sum(outcome.reused for outcome in self.outcomes),
            **({"cost_usd": spent} if spent else {}),
        }

    def failures(self) -> list[JsonValue]:
        """The requests that failed, each with code, problem and remedy."""
        return [
            {"request": outcome.where, "flow_run_id": outcome.flow_run_id, **error.model_dump()}
            for outcome in self.outcomes
            if (error := outcome.error) is not None
        ]

    @property
    def key(self) -> str:
        """Where the store keeps it."""
        return report_key(self.flow_run_id)


def report_key(flow_run_id: str | UUID) -> str:
    """Where the store keeps the report of a batch."""
    return f"{REPORTS}{flow_run_id}.json"


def keep_report(report: BatchReport) -> None:
    """Put the report into the store, where its run's id finds it."""
    data = report.model_dump_json(indent=1, exclude_defaults=True)
    current_store().write_record(report.key, data.encode())


def load_report(flow_run_id: str | UUID) -> BatchReport:
    """The report of a batch.

    Raises:
        MissingFileError: the run left none.
        ManifestUnreadableError: it is none that this version reads.
    """
    key = report_key(flow_run_id)
    try:
        return BatchReport.model_validate_json(current_store().read_record(key))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ManifestUnreadableError(
            f"{key} is not the report of a batch: {field or 'the whole file'}: {first['msg']}",
            "delete it from the store, then run the batch again with the same key",
        ) from error
