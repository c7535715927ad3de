"""One task of Runware, which is found again by our own id of it."""

import re
import uuid
from collections.abc import Mapping
from typing import ClassVar, cast

from pydantic import JsonValue

from safelight.engines.remote.asking import Answer, LostError, Provider, SlowDownError
from safelight.engines.remote.jobs import AfterLoss, Calls, Looked, Taken
from safelight.engines.remote.patience import patiently
from safelight.errors import (
    AuthInvalidError,
    EngineOfflineError,
    EngineTimeoutError,
    InsufficientFundsError,
    InvalidFieldValueError,
    PipelineError,
    SafetyFilterError,
    UnknownError,
)
from safelight.settings import settings

ENGINE_ID, TITLE = "provider_runware", "Runware"
RESULTS = ("imageURL", "imageDataURI", "videoURL")
_FUNDS = re.compile(r"credit|quota|balance|paymentrequired|environmentpaused", re.IGNORECASE)
_SAFETY = re.compile(r"contentpolicy|nsfw|promptblocked|moderation", re.IGNORECASE)
_KEY = re.compile(r"api_?key|unauthori[sz]ed|authentication", re.IGNORECASE)
_NOBODY = re.compile(r"not_?found|unknown_?task|notexist|no_?task", re.IGNORECASE)
_FAULT = re.compile(
    r"^provider|internal|serviceunavailable|servererror|infrastructure", re.IGNORECASE
)


class RunwareCalls(Calls):
    """One task."""

    engine_id: ClassVar[str] = ENGINE_ID
    after_loss: ClassVar[AfterLoss] = "lookup"

    def __init__(
        self,
        provider: Provider,
        task: Mapping[str, JsonValue],
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """A task that is not sent yet.

        Args:
            provider: Runware.
            task: its fields; small files travel in them.
            inputs: large files as data, which are put into its storage first.
        """
        self._provider = provider
        self._task = task
        self._inputs = inputs or {}

    def prepared(self) -> JsonValue:
        """The task, with its large files in Runware's storage."""
        stored: dict[str, JsonValue] = {
            name: self._stored(data) for name, data in self._inputs.items()
        }
        return {**self._task, **({"inputs": stored} if stored else {})}

    def submit(self, task: str, sent: JsonValue) -> Taken:
        """See `Calls.submit`."""
        fields = cast("dict[str, JsonValue]", sent)
        answer = ask(self._provider, {**fields, "taskUUID": task})
        if answer.status >= 500 or answer.status == 408:
            raise LostError(f"{TITLE} answers {answer.status}", "wait")
        error = first_error(self._provider, answer, task)
        if error is not None:
            raise error
        if not any(each.get("taskUUID") == task for each in entries(answer, "data")):
            raise LostError(f"{TITLE} answers without our task", "wait")
        return Taken(task)

    def _stored(self, data: str) -> str:
        """What the storage calls a file."""

        def asked() -> str:
            task = with_id("mediaStorage", operation="upload", media=data)
            answer = ask(self._provider, task)
            error = first_error(self._provider, answer)
            if error is not None:
                raise error
            known = [each.get("mediaUUID") for each in entries(answer, "data")]
            if not known or not isinstance(known[0], str):
                raise EngineOfflineError(f"{TITLE} keeps no file now", "run it again later")
            return known[0]

        return patiently(asked)

    def find(self, task: str) -> Taken | None:
        """See `Calls.find`: among those that work, then among those that were done."""
        for kind in ("getResponse", "getTaskDetails"):
            answer = ask(self._provider, {"taskType": kind, "taskUUID": task})
            _require_answer(self._provider, answer)
            if any(each.get("taskUUID") == task for each in entries(answer, "data")):
                return Taken(task)
            failed = [each for each in entries(answer, "errors") if each.get("taskUUID") == task]
            if any(not _NOBODY.search(str(each.get("code"))) for each in failed):
                return Taken(task)
        return None

    def look(self, taken: Taken) -> Looked:
        """See `Calls.look`."""
        asked: dict[str, JsonValue] = {"taskType": "getResponse", "taskUUID": taken.remote_id}
        answer = ask(self._provider, asked)
        _require_answer(self._provider, answer)
        found = entries(answer, "data")
        costs = [each["cost"] for each in found if isinstance(each.get("cost"), int | float)]
        charged = float(sum(cast("list[float]", costs))) if costs else None
        error = first_error(self._provider, answer, taken.remote_id)
        if error is not None:
            error.charged = bool(charged)
            return Looked("failed", error=error, charged_usd=charged)
        for each in found:
            if each.get("status") == "error":
                failed = refusal(self._provider, each, answer)
                failed.charged = bool(charged)
                return Looked("failed", error=failed, charged_usd=charged)
        files = tuple(str(each[name]) for each in found for name in RESULTS if each.get(name))
        if not files or any(each.get("status") == "processing" for each in found):
            told = next((each.get("progress") for each in found), None)
            return Looked("waiting", float(told) if isinstance(told, int | float) else 0.0)
        if any(each.get("NSFWContent") for each in found):
            unsafe = SafetyFilterError(f"{TITLE} found what it drew not safe", "change the prompt")
            unsafe.charged = True
            return Looked("failed", error=unsafe, charged_usd=charged)
        return Looked("done", files=files, charged_usd=charged)


def ask(provider: Provider, task: Mapping[str, JsonValue], seconds: float | None = None) -> Answer:
    """The answer to one task.

    Raises:
        PipelineError: as `Provider.ask`.
    """
    key = settings().runware_key
    head = {"Authorization": f"Bearer {key.get_secret_value().strip() if key else ''}"}
    return provider.ask("POST", settings().runware_url, head, [dict(task)], seconds=seconds)


def with_id(task_type: str, **fields: JsonValue) -> dict[str, JsonValue]:
    """A question that needs an id and costs nothing."""
    return {"taskType": task_type, "taskUUID": str(uuid.uuid4()), **fields}


def entries(answer: Answer, name: str) -> list[Mapping[str, JsonValue]]:
    """The objects of a list of an answer."""
    listed = answer.fields.get(name)
    return [each for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict)]


def first_error(
    provider: Provider, answer: Answer, task: str | None = None
) -> PipelineError | None:
    """The error of a task; None where there is none.

    Args:
        provider: Runware.
        answer: its answer, which may tell of several tasks.
        task: errors of others are not meant.
    """
    for each in entries(answer, "errors"):
        if task is None or each.get("taskUUID") in (task, None, ""):
            return refusal(provider, each, answer)
    return None if answer.good else refusal(provider, {}, answer)


def refusal(provider: Provider, told: Mapping[str, JsonValue], answer: Answer) -> PipelineError:
    """What an error of Runware means; its codes change, so that parts of them are looked for.

    Args:
        provider: Runware.
        told: the error.
        answer: what it came in.
    """
    error = told.get("error")
    inner = error if isinstance(error, dict) else {}
    code = str(told.get("code") or inner.get("code") or "")
    text = told.get("message") or inner.get("message") or error or code or answer.status
    named = told.get("parameter")
    parts = ", ".join(map(str, named)) if isinstance(named, list) else str(named or "")
    said = provider.said(": ".join(each for each in (parts, str(text)) if each))
    squeezed = code.replace("_", "").replace("-", "")
    if answer.status == 402 or _FUNDS.search(squeezed):
        return InsufficientFundsError(
            f"{TITLE}: {said}", "top up at my.runware.ai, or let another engine do it"
        )
    if _SAFETY.search(squeezed):
        return SafetyFilterError(f"{TITLE} refuses to draw this: {said}", "change the prompt")
    if answer.status in (401, 403) or _KEY.search(code):
        return AuthInvalidError(f"{TITLE} refuses the key: {said}", "correct SAFELIGHT_RUNWARE_KEY")
    if answer.status == 429 or "ratelimit" in squeezed.lower() or "concurren" in code.lower():
        concurrent = "concurren" in f"{code} {text}".lower()
        what = "so much at once" if concurrent else "so many requests"
        return SlowDownError(
            f"{TITLE} does not take {what}: {said}", "wait a while", answer.wait_seconds, concurrent
        )
    if "timeout" in squeezed.lower():
        return EngineTimeoutError(f"{TITLE} took too long: {said}", "run it again")
    if answer.status >= 500 or _FAULT.search(squeezed):
        return EngineOfflineError(f"{TITLE} has a fault: {said}", "run it again later")
    if (
        parts
        or answer.status == 400
        or squeezed.lower().startswith(("invalid", "missing", "unsupp"))
    ):
        return InvalidFieldValueError(f"{TITLE} does not take this: {said}", "correct the field")
    return UnknownError(
        f"{TITLE} says {provider.said(code or answer.status)}: {said}", "look at my.runware.ai"
    )


def _require_answer(provider: Provider, answer: Answer) -> None:
    """Refuse what is no answer about a task: faults that pass, and refusals of the key."""
    if not answer.good or ("data" not in answer.fields and not entries(answer, "errors")):
        raise first_error(provider, answer) or EngineOfflineError(
            f"{TITLE} answers nothing that can be read ({answer.status})", "run it again later"
        )
    for each in entries(answer, "errors"):
        error = refusal(provider, each, answer)
        if isinstance(error, SlowDownError | AuthInvalidError) and not each.get("taskUUID"):
            raise error
