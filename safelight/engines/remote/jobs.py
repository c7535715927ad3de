"""One job at a provider: sent once, found again, followed to its end, paid for once.

What is known of it is kept before it is sent and when it was taken, so that a process which takes
the work up goes on with the job that was begun. What may have arrived is never sent as something
new: it is looked for, sent again under the same id where the provider knows it by that, and else
reported as unknown.
"""

import hashlib
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

from pydantic import JsonValue

from safelight.engines.remote.asking import (
    LateError,
    LostError,
    NotSentError,
    SlowDownError,
    passing,
)
from safelight.engines.remote.last_errors import keep_last_error
from safelight.engines.remote.patience import (
    GROWS,
    LONGEST,
    asked_to_wait,
    patiently,
    pauses,
)
from safelight.engines.remote.records import (
    EndedJobError,
    JobRecord,
    Told,
    drop_job,
    kept_job,
    key_of_job,
)
from safelight.engines.remote.spending import release, reserve, settle, today
from safelight.engines.work import current_work
from safelight.errors import EngineTimeoutError, PipelineError, UnknownError
from safelight.progress import StopReason, StopRequestedError, note, pause, step, stop_reason
from safelight.provenance.charges import charge
from safelight.settings import settings

T = TypeVar("T")
ARRIVES = (0.5, 1.0, 2.0, 4.0)
"""Pauses, as parts of the setting, after which a job that arrived without an answer shows."""
AfterLoss = Literal["resend", "lookup", "unknown"]


@dataclass(frozen=True)
class Taken:
    """A job that a provider has."""

    remote_id: str
    """As the provider calls it."""
    urls: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where the provider wants to be asked for it."""


@dataclass(frozen=True)
class Looked:
    """What a provider says of a job."""

    state: Literal["waiting", "done", "failed"]
    progress: float = 0.0
    """0 to 1, where it is told."""
    files: tuple[str, ...] = ()
    """Addresses of the results, or data: of them."""
    told: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What else it says of them."""
    charged_usd: float | None = None
    """What it says it has charged."""
    error: PipelineError | None = None
    """Why it failed; its `charged` says whether it may cost something all the same."""


class Calls(ABC):
    """How one provider is asked for one kind of job."""

    engine_id: ClassVar[str]
    after_loss: ClassVar[AfterLoss]
    """What is done about a job whose answer is lost: send it again under our id, which the provider
    knows it by; look it up by our id; or nothing."""

    @abstractmethod
    def prepared(self) -> JsonValue:
        """What is sent, with the files that go with it uploaded; costs nothing."""

    @abstractmethod
    def submit(self, task: str, sent: JsonValue) -> Taken:
        """Send it, once.

        Raises:
            PipelineError: it was refused, and nothing is charged; or its answer is lost.
        """

    def find(self, task: str) -> Taken | None:
        """The job that has our id; None where the provider has none."""
        del task
        return None

    @abstractmethod
    def look(self, taken: Taken) -> Looked:
        """How it goes; asked once."""

    def cancel(self, taken: Taken) -> bool:
        """Have it ended; whether the provider can do such a thing."""
        del taken
        return False


@dataclass(frozen=True)
class Wanted:
    """What a job is to do, for its record."""

    model: str
    """What the provider calls it."""
    content: str
    """Tells this job from others of the same work: a digest of what it is asked and given."""
    estimated_usd: Callable[[JsonValue], float]
    """What it will cost, by what is sent."""
    charged: Callable[[Looked], float | None] = lambda looked: looked.charged_usd
    """What it did cost, where that is known."""


def run_job(calls: Calls, wanted: Wanted, fetch: Callable[["Fetching"], T]) -> T:
    """Have a provider do something, and fetch what it made.

    Args:
        calls: how the provider is asked.
        wanted: what for.
        fetch: makes the result of what is told once the job is done.

    Raises:
        StopRequestedError: the run was asked to stop; the job is cancelled, where that is possible
            and the run does not go on elsewhere.
        InsufficientFundsError: a budget does not allow it.
        EngineTimeoutError: it takes too long.
        PipelineError: as the provider says.
    """
    try:
        return _run(calls, wanted, fetch)
    except PipelineError as error:
        keep_last_error(calls.engine_id, error)
        raise


def _run(calls: Calls, wanted: Wanted, fetch: Callable[["Fetching"], T]) -> T:
    work = current_work()
    key = key_of_job(calls.engine_id, f"{work.name()}\n{wanted.model}\n{wanted.content}")
    known = kept_job(key)
    if known is not None and known.failure is not None:
        charge(known.charge)
        raise EndedJobError(known.failure.problem, known.failure.remedy, known.failure.code)
    if known is None or known.state == "failed":
        attempt = 0 if known is None else known.attempt + 1
        record = _begun(calls, wanted, key, work.run, attempt)
        taken = _submitted(calls, record)
    elif known.state == "sending":
        note(f"{calls.engine_id}: goes on with a job that an earlier try may have sent")
        record = known
        taken = _recovered(calls, known)
    else:
        note(f"{calls.engine_id}: goes on with job {known.remote_id}")
        record, taken = known, Taken(known.remote_id, known.urls)
    record = record.but(state="taken", remote_id=taken.remote_id, urls=dict(taken.urls), sent=None)
    if record != known:
        record.keep()
    charge(record.charge)
    job = Fetching(calls, record, taken, wanted)
    try:
        made = fetch(job)
    except PipelineError as error:
        error.charged = error.charged or job.record.state != "failed"
        raise
    job.record.but(state="done").keep()
    return made


class Fetching:
    """A job that was taken, until its results are fetched."""

    def __init__(self, calls: Calls, record: JobRecord, taken: Taken, wanted: Wanted) -> None:
        self._calls = calls
        self._taken = taken
        self._wanted = wanted
        self.record = record
        """As it is kept."""

    @property
    def shown(self) -> str:
        """The job, for messages."""
        return f"job {self.record.remote_id} of {self.record.engine_id}"

    def finished(self) -> Looked:
        """Wait until it is done; asked again, it tells fresh addresses of the results.

        Raises:
            PipelineError: as `run_job`.
        """
        try:
            looked = self._followed()
        except StopRequestedError:
            if stop_reason() is StopReason.CANCEL:  # else another process goes on with it
                self._cancelled()
            raise
        if looked.state == "failed":
            error = looked.error or UnknownError(f"{self.shown} failed", "run it again")
            self._failed(error)
            raise error
        if self.record.charged_usd is None:
            self._settled(self._wanted.charged(looked))
        return looked

    def _followed(self) -> Looked:
        first = settings().provider_poll_seconds
        ends = self.record.begun + settings().provider_wait_seconds
        wait = first
        while True:
            looked = patiently(lambda: self._calls.look(self._taken))
            if looked.state != "waiting":
                return looked
            step(round(looked.progress * 100), 100)
            if time.time() > ends:
                self._cancelled()
                raise EngineTimeoutError(
                    f"{self.shown} is not done after {settings().provider_wait_seconds:g} s",
                    "look at the provider's page of it, or raise SAFELIGHT_PROVIDER_WAIT_SECONDS",
                )
            pause(wait)
            wait = min(wait * GROWS, first * LONGEST)

    def _cancelled(self) -> None:
        try:
            could = self._calls.cancel(self._taken)
        except PipelineError:  # why the run ends is said already
            could = False
        if not could:
            note(f"{self.shown} goes on at the provider, which may charge for it")

    def _failed(self, error: PipelineError) -> None:
        if not error.charged:
            release(self.record.task, self.record.run, self.record.day)
            self.record = self.record.but(state="failed", charged_usd=0.0).keep()
        else:
            told = Told(code=error.code, problem=error.problem, remedy=error.remedy)
            self.record = self.record.but(state="failed", failure=told).keep()
        charge(self.record.charge)

    def _settled(self, usd: float | None) -> None:
        if usd is None:
            return
        self.record = self.record.but(charged_usd=usd).keep()
        settle(self.record.charge, self.record.run, self.record.day)
        charge(self.record.charge)


def id_of_job(key: str, attempt: int) -> str:
    """Our own id of a job: always the same for it, in the form of a random one."""
    drawn = hashlib.sha256(f"{key}/{attempt}".encode()).digest()[:16]
    return str(uuid.UUID(bytes=drawn, version=4))


def _begun(calls: Calls, wanted: Wanted, key: str, run: str, attempt: int) -> JobRecord:
    sent = calls.prepared()
    record = JobRecord(
        key=key,
        engine_id=calls.engine_id,
        model=wanted.model,
        task=id_of_job(key, attempt),
        attempt=attempt,
        sent=sent,
        begun=time.time(),
        run=run,
        day=today(),
        estimated_usd=wanted.estimated_usd(sent),
    )
    reserve(record.charge, record.run, record.day)
    _kept(calls, record)
    return record


def _kept(calls: Calls, record: JobRecord) -> None:
    """Keep it before it is sent; what is sent, only where it must be the very same again."""
    (record if calls.after_loss == "resend" else record.but(sent=None)).keep()


def _submitted(calls: Calls, record: JobRecord) -> Taken:
    """Send a job that never was sent."""
    ends = time.monotonic() + settings().provider_patience_seconds
    for wait in pauses():
        try:
            return calls.submit(record.task, record.sent)
        except (LostError, LateError) as lost:
            return _recovered(calls, record, lost)
        except (NotSentError, SlowDownError) as error:
            _refused(record)  # whoever finds it meanwhile may send it as new
            left = ends - time.monotonic()
            if left <= 0:
                raise
            pause(min(asked_to_wait(error) or wait, left))
            reserve(record.charge, record.run, record.day)
            _kept(calls, record)
        except PipelineError as error:
            _ended(record, error)
            raise
    raise AssertionError("the pauses have no end")


def _recovered(calls: Calls, record: JobRecord, lost: PipelineError | None = None) -> Taken:
    """The job whose answer is lost, or that an earlier process may have sent."""
    if calls.after_loss == "unknown":
        return _unknown(record, lost)
    sent = calls.prepared() if record.sent is None else record.sent
    ends = time.monotonic() + settings().provider_patience_seconds
    for wait in pauses():
        found = _arrived(calls, record)
        if found is not None:
            return found
        try:  # under the same id a provider takes it once, or refuses it where it has it
            return calls.submit(record.task, sent)
        except PipelineError as error:
            left = ends - time.monotonic()
            if passing(error) and left > 0:
                pause(min(asked_to_wait(error) or wait, left))
                continue
            found = _arrived(calls, record)
            if found is not None:
                return found
            if passing(error):
                error.charged = True  # still not known: the next try asks again
            else:
                _ended(record, error)
            raise
    raise AssertionError("the pauses have no end")


def _arrived(calls: Calls, record: JobRecord) -> Taken | None:
    """The job that the provider has under our id; a while is waited until it shows."""
    if calls.after_loss != "lookup":
        return None
    for wait in (*ARRIVES, 0.0):
        found = patiently(lambda: calls.find(record.task))
        if found is not None:
            note(f"{record.engine_id}: the answer was lost; the job was found by our id")
            return found
        pause(wait * settings().provider_poll_seconds)
    return None


def _unknown(record: JobRecord, lost: PipelineError | None) -> Taken:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.begun))
    why = f" ({lost.problem})" if lost is not None else ""
    error = UnknownError(
        f"nobody knows whether {record.engine_id} took request {record.task} to {record.model} at "
        f"{when}{why}; it may be charged, so it is not sent again",
        "look for it on the provider's page of requests, then start a new run",
    )
    error.charged = True
    _ended(record, error)
    raise error from lost


def _ended(record: JobRecord, error: PipelineError) -> None:
    """It was refused; where it may be charged all the same, it is not sent again."""
    if not error.charged:
        _refused(record)
        return
    told = Told(code=error.code, problem=error.problem, remedy=error.remedy)
    charge(record.but(state="failed", failure=told, sent=None).keep().charge)


def _refused(record: JobRecord) -> None:
    """Nothing was charged: the next try is a new one."""
    drop_job(record)
    release(record.task, record.run, record.day)
