"""What answers of fal mean that are no yes."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import JsonValue

from safelight.engines.remote.asking import Answer, Provider, SlowDownError
from safelight.errors import (
    AuthInvalidError,
    ContractMismatchError,
    EngineOfflineError,
    EngineTimeoutError,
    InsufficientFundsError,
    InvalidFieldValueError,
    PipelineError,
    SafetyFilterError,
    UnknownError,
)

TITLE = "fal"
FUNDS = ("locked", "balance", "top up", "top_up", "billing")
_SAFETY = ("content_policy", "nsfw", "moderation", "safety")


def refusal(provider: Provider, answer: Answer) -> PipelineError:
    """What an answer of fal that is no yes means.

    Args:
        provider: fal.
        answer: of its queue, its storage or its account.
    """
    detail = answer.fields.get("detail")
    said = provider.said(_detail(detail) or answer.fields.get("error") or answer.status)
    status, kind = answer.status, error_type(answer)
    if status == 402 or (status == 403 and says(answer, FUNDS)):
        return InsufficientFundsError(
            f"{TITLE}: {said}", "top up at fal.ai/dashboard/billing, or let another engine do it"
        )
    if status in (401, 403):
        return AuthInvalidError(
            f"{TITLE} refuses the key ({status}): {said}",
            "correct SAFELIGHT_FAL_KEY, or let the key use this model",
        )
    if status == 429:
        concurrent = says(answer, ("concurren",))
        what = "so much at once" if concurrent else "so many requests"
        return SlowDownError(
            f"{TITLE} does not take {what}: {said}", "wait a while", answer.wait_seconds, concurrent
        )
    if says(answer, _SAFETY):
        return SafetyFilterError(f"{TITLE} refuses to draw this: {said}", "change the prompt")
    if status in (400, 422):
        return InvalidFieldValueError(f"{TITLE} does not take this: {said}", "correct the field")
    if status == 404:
        return ContractMismatchError(f"{TITLE} has no such thing: {said}", "correct the model")
    if "timeout" in kind or status in (408, 504):
        return EngineTimeoutError(f"{TITLE} took too long: {said}", "run it again")
    if status >= 500:
        return EngineOfflineError(f"{TITLE} has a fault ({status}): {said}", "run it again later")
    return UnknownError(f"{TITLE} answers {status}: {said}", "look at fal.ai/dashboard/requests")


def error_type(answer: Answer) -> str:
    """What fal calls the error of a request."""
    told = answer.headers.get("x-fal-error-type") or answer.fields.get("error_type") or ""
    return str(told)


def by_fal(answer: Answer) -> bool:
    """Whether fal itself says it, not a proxy before it."""
    return bool(error_type(answer)) or "detail" in answer.fields


def _detail(detail: JsonValue | None) -> str:
    if isinstance(detail, str):
        return detail
    listed = cast("Sequence[object]", detail) if isinstance(detail, list) else ()
    found = [cast("Mapping[str, Any]", each) for each in listed if isinstance(each, dict)]
    return "; ".join(
        f"{'.'.join(str(part) for part in each.get('loc') or ())}: {each.get('msg', '')}"
        for each in found
    )


def says(answer: Answer, signs: Sequence[str]) -> bool:
    """Whether an answer tells one of some signs, in its text or its types."""
    detail = answer.fields.get("detail")
    kinds = [
        str(each.get("type", ""))
        for each in (detail if isinstance(detail, list) else ())
        if isinstance(each, dict)
    ]
    text = " ".join((_detail(detail), error_type(answer), *kinds)).lower()
    return any(sign in text for sign in signs)
