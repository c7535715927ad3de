"""One generation of Sync Labs, sent as often as needed under one idempotency key."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from pydantic import JsonValue

from safelight.engines.remote.asking import Answer, LostError, Provider, SlowDownError
from safelight.engines.remote.jobs import AfterLoss, Calls, Looked, Taken
from safelight.errors import (
    AuthInvalidError,
    ContractMismatchError,
    EngineOfflineError,
    EngineTimeoutError,
    InsufficientFundsError,
    InvalidFieldValueError,
    InvalidMediaError,
    PipelineError,
    SafetyFilterError,
    UnknownError,
)
from safelight.settings import settings

ENGINE_ID, TITLE = "provider_synclabs", "Sync Labs"
_SAFETY = ("moderation", "nsfw", "content_policy", "safety")
_FAULTS = ("generation_infra_", "controller_")
_UNDER_WAY = ("IN_PROGRESS", "CONFLICT", "LOCKED")


class SyncCalls(Calls):
    """One generation."""

    engine_id: ClassVar[str] = ENGINE_ID
    after_loss: ClassVar[AfterLoss] = "resend"

    def __init__(self, provider: Provider, prepare: Callable[[], JsonValue]) -> None:
        self._provider = provider
        self._prepare = prepare

    def prepared(self) -> JsonValue:
        """What is sent, its files among the account's assets."""
        return self._prepare()

    def submit(self, task: str, sent: JsonValue) -> Taken:
        """See `Calls.submit`; under a key that the provider knows it is the same generation."""
        answer = self._provider.ask(
            "POST", place("/v2/generate"), {**head(), "Idempotency-Key": task}, sent
        )
        told, code = answer.fields, error_code(answer)
        if code.startswith("IDEMPOTENCY_") and "generationId" in told:
            return Taken(str(told["generationId"]))
        if code == "IDEMPOTENCY_OUTCOME_UNKNOWN":
            error = UnknownError(
                f"{TITLE} does not know what became of request {task}; it may be charged, so it is "
                "not sent again",
                "look for it at sync.so, then start a new run",
            )
            error.charged = True
            raise error
        under_way = code.startswith("IDEMPOTENCY_") and code.endswith(_UNDER_WAY)
        if answer.status >= 500 or answer.status == 408 or under_way:
            raise LostError(f"{TITLE} answers {answer.status} {code}".rstrip(), "wait")
        if not answer.good:
            raise refusal(self._provider, answer)
        known = told.get("id")
        if not isinstance(known, str):
            raise LostError(f"{TITLE} answers without an id", "wait")
        return Taken(known)

    def look(self, taken: Taken) -> Looked:
        """See `Calls.look`."""
        answer = self._provider.ask("GET", place(f"/v2/generate/{taken.remote_id}"), head())
        if not answer.good:
            raise refusal(self._provider, answer)
        told = answer.fields
        status, url = told.get("status"), told.get("outputUrl")
        if status in ("FAILED", "REJECTED"):
            return Looked("failed", error=_failure(self._provider, told))
        if status != "COMPLETED":
            return Looked("waiting")
        return Looked("done", files=(url,) if isinstance(url, str) else (), told=told)


def head() -> dict[str, str]:
    """What carries the key."""
    key = settings().synclabs_key
    return {"x-api-key": key.get_secret_value().strip() if key else ""}


def place(path: str) -> str:
    """An address of the interface."""
    return f"{settings().synclabs_url.rstrip('/')}{path}"


def error_code(answer: Answer) -> str:
    """What Sync Labs calls an error."""
    told = answer.fields.get("errorCode") or answer.fields.get("code") or ""
    named = answer.fields.get("error")
    if not told and isinstance(named, str) and named.startswith("IDEMPOTENCY_"):
        return named
    return str(told)


def refusal(provider: Provider, answer: Answer) -> PipelineError:
    """What an answer of Sync Labs that is no yes means.

    Args:
        provider: Sync Labs.
        answer: of it.
    """
    told, code, status = answer.fields, error_code(answer), answer.status
    said = provider.said(_message(told) or code or status)
    if status == 402:
        return InsufficientFundsError(
            f"{TITLE}: {said}", "top up or take a larger plan at sync.so, or shorten the clip"
        )
    if status in (401, 403):
        return AuthInvalidError(
            f"{TITLE} refuses the key: {said}", "correct SAFELIGHT_SYNCLABS_KEY"
        )
    if status == 429:
        concurrent = code == "concurrency_limit_reached"
        what = "so much at once" if concurrent else "so many requests"
        return SlowDownError(
            f"{TITLE} does not take {what}: {said}", "wait a while", answer.wait_seconds, concurrent
        )
    if status == 413:
        return InvalidMediaError(f"{TITLE} takes no file so large: {said}", "shorten the clip")
    if any(sign in code.lower() for sign in _SAFETY):
        return SafetyFilterError(f"{TITLE} refuses this: {said}", "give another clip or sound")
    if status == 404:
        return ContractMismatchError(f"{TITLE} has no such thing: {said}", "run it again")
    if status >= 500:
        return EngineOfflineError(f"{TITLE} has a fault ({status}): {said}", "run it again later")
    if status in (400, 409, 422):
        return InvalidFieldValueError(f"{TITLE} does not take this: {said}", "correct what it says")
    return UnknownError(f"{TITLE} answers {status}: {said}", "look at sync.so")


def _failure(provider: Provider, told: Mapping[str, JsonValue]) -> PipelineError:
    """Why a generation failed; those that failed are not charged."""
    code = str(told.get("errorCode") or "")
    field = f"{told['field']}: " if told.get("field") else ""
    said = provider.said(f"{field}{told.get('error') or code or told.get('status')}")
    rejected = told.get("status") == "REJECTED" and not code
    if rejected or any(sign in code.lower() for sign in _SAFETY):
        return SafetyFilterError(f"{TITLE} refuses this: {said}", "give another clip or sound")
    if code == "generation_timeout":
        return EngineTimeoutError(f"{TITLE} took too long: {said}", "run it again")
    if code.startswith(_FAULTS):
        return EngineOfflineError(f"{TITLE} has a fault: {said}", "run it again later")
    if code == "generation_plan_duration_exceeded":
        return InsufficientFundsError(f"{TITLE}: {said}", "shorten the clip, or take a larger plan")
    if code.startswith("generation_"):
        return InvalidFieldValueError(f"{TITLE} does not take this: {said}", "correct what it says")
    return UnknownError(f"{TITLE} failed: {said}", "look at sync.so")


def _message(told: Mapping[str, JsonValue]) -> str:
    message = told.get("message")
    return "; ".join(map(str, message)) if isinstance(message, list) else str(message or "")
