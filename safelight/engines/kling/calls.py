"""One task of Kling, which is found again by the id that we gave it."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, cast

from pydantic import JsonValue

from safelight.engines.kling.signing import Clock, token
from safelight.engines.remote.asking import Answer, LostError, Provider, SlowDownError
from safelight.engines.remote.jobs import AfterLoss, Calls, Looked, Taken
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
from safelight.settings import settings

ENGINE_ID, TITLE = "provider_kling", "Kling"
OFF_CLOCK = (1003, 1004)
"""A token that is not good yet, or not any more."""
_SAFETY = re.compile(r"risk|policy|sensitive|moderat|violat", re.IGNORECASE)


@lru_cache(maxsize=8)
def _clock(url: str) -> Clock:
    """Of the Kling at an address."""
    del url
    return Clock()


class KlingCalls(Calls):
    """One task."""

    engine_id: ClassVar[str] = ENGINE_ID
    after_loss: ClassVar[AfterLoss] = "lookup"

    def __init__(self, provider: Provider, path: str, body: Mapping[str, JsonValue]) -> None:
        self._provider = provider
        self._path = path
        self._body = body

    def prepared(self) -> JsonValue:
        """The task; pictures and sounds travel in it."""
        return dict(self._body)

    def submit(self, task: str, sent: JsonValue) -> Taken:
        """See `Calls.submit`."""
        fields = cast("dict[str, JsonValue]", sent)
        answer = ask(self._provider, "POST", self._path, {**fields, "external_task_id": task})
        if (answer.status >= 500 and not _code(answer)) or answer.status == 408:
            raise LostError(f"{TITLE} answers {answer.status}", "wait")
        require_good(self._provider, answer)
        known = _data(answer).get("task_id")
        if not isinstance(known, str):
            raise LostError(f"{TITLE} answers without an id", "wait")
        return Taken(known)

    def find(self, task: str) -> Taken | None:
        """See `Calls.find`."""
        answer = ask(self._provider, "GET", f"{self._path}/{task}")
        if answer.status == 404 or _code(answer) in (1202, 1203):
            return None
        require_good(self._provider, answer)
        known = _data(answer).get("task_id")
        return Taken(known) if isinstance(known, str) and known else None

    def look(self, taken: Taken) -> Looked:
        """See `Calls.look`."""
        answer = ask(self._provider, "GET", f"{self._path}/{taken.remote_id}")
        require_good(self._provider, answer)
        told = _data(answer)
        usd = _charged(told)
        if told.get("task_status") == "failed":
            error = _failure(self._provider, told)
            error.charged = bool(usd)
            return Looked("failed", error=error, charged_usd=usd)
        if told.get("task_status") != "succeed":
            return Looked("waiting")
        result = told.get("task_result")
        kinds = cast("Mapping[str, JsonValue]", result) if isinstance(result, dict) else {}
        listed = kinds.get("videos") or kinds.get("images")
        files = tuple(
            str(each["url"])
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict) and each.get("url")
        )
        return Looked("done", files=files, charged_usd=usd)


class FaceCalls(Calls):
    """Finding the face in a clip, which is answered at once and knows no id of ours."""

    engine_id: ClassVar[str] = ENGINE_ID
    after_loss: ClassVar[AfterLoss] = "unknown"
    path: ClassVar[str] = "/v1/videos/identify-face"

    def __init__(self, provider: Provider, video_url: str) -> None:
        self._provider = provider
        self._video_url = video_url

    def prepared(self) -> JsonValue:
        """Where the clip is."""
        return {"video_url": self._video_url}

    def submit(self, task: str, sent: JsonValue) -> Taken:
        """See `Calls.submit`; what is answered is kept as the addresses of the job."""
        del task
        answer = ask(self._provider, "POST", self.path, sent)
        if answer.status >= 500 and not _code(answer):
            raise LostError(f"{TITLE} answers {answer.status}", "wait")
        require_good(self._provider, answer)
        told = _data(answer)
        faces = told.get("face_data")
        listed = [
            each for each in (faces if isinstance(faces, list) else ()) if isinstance(each, dict)
        ]
        if not listed:
            error = InvalidFieldValueError(
                f"{TITLE} finds no face in the clip", "give a clip that shows a face from before"
            )
            error.charged = True
            raise error
        longest = max(listed, key=_shown_ms)
        return Taken(
            str(told.get("session_id")),
            {
                "face": str(longest.get("face_id")),
                "start": str(longest.get("start_time", 0)),
                "end": str(longest.get("end_time", 0)),
                "faces": str(len(listed)),
            },
        )

    def look(self, taken: Taken) -> Looked:
        """It is done when it is answered."""
        return Looked("done", told={"session": taken.remote_id, **taken.urls})


def ask(
    provider: Provider, method: str, path: str, body: JsonValue = None, seconds: float | None = None
) -> Answer:
    """The answer to a question; asked again where the clocks differ, which costs nothing.

    Raises:
        PipelineError: as `Provider.ask`.
    """
    known = settings()
    access, secret = known.kling_access_key, known.kling_secret_key
    clock = _clock(known.kling_url)
    url = f"{known.kling_url.rstrip('/')}{path}"

    def once() -> Answer:
        keys = [key.get_secret_value().strip() if key else "" for key in (access, secret)]
        signed = token(keys[0], keys[1], clock.now())
        head = {"Authorization": f"Bearer {signed}"}
        return provider.ask(method, url, head, body, seconds=seconds)

    answer = once()
    if answer.status == 401 and _code(answer) in OFF_CLOCK:
        if clock.learn(answer.headers.get("date", "")):
            return once()
    return answer


def require_good(provider: Provider, answer: Answer) -> None:
    """Refuse what is no yes.

    Raises:
        PipelineError: as `refusal`.
    """
    if not answer.good or _code(answer):
        raise refusal(provider, answer)


def refusal(provider: Provider, answer: Answer) -> PipelineError:
    """What an answer of Kling that is no yes means.

    Args:
        provider: Kling.
        answer: of it.
    """
    code, status = _code(answer), answer.status
    said = provider.said(f"{answer.fields.get('message') or status} (code {code})")
    if code in (1101, 1102) or status == 402:
        return InsufficientFundsError(
            f"{TITLE}: {said}", "buy a resource pack, or let another engine do it"
        )
    if code in (1000, 1001, 1002, 1003, 1004, 1100, 1103, 1304) or (
        status in (401, 403) and not code
    ):
        clocks = "; set the clock of this machine" if code in OFF_CLOCK else ""
        return AuthInvalidError(
            f"{TITLE} does not take us: {said}",
            "correct SAFELIGHT_KLING_ACCESS_KEY and SAFELIGHT_KLING_SECRET_KEY, or look at the "
            f"account{clocks}",
        )
    if code in (1300, 1301):
        return SafetyFilterError(f"{TITLE} refuses this: {said}", "change prompt or picture")
    if code in (1302, 1303) or status == 429:
        concurrent = code == 1303
        what = "so much at once" if concurrent else "so many requests"
        return SlowDownError(
            f"{TITLE} does not take {what}: {said}", "wait a while", answer.wait_seconds, concurrent
        )
    if code in (1200, 1201) or (status == 400 and not code):
        return InvalidFieldValueError(f"{TITLE} does not take this: {said}", "correct the field")
    if code in (1202, 1203) or status == 404:
        return ContractMismatchError(f"{TITLE} has no such thing: {said}", "correct the model")
    if code == 5002 or status == 504:
        return EngineTimeoutError(f"{TITLE} took too long: {said}", "run it again")
    if code in (5000, 5001) or status >= 500:
        return EngineOfflineError(f"{TITLE} has a fault: {said}", "run it again later")
    return UnknownError(f"{TITLE} answers {status}: {said}", "look at its console")


def _failure(provider: Provider, told: Mapping[str, JsonValue]) -> PipelineError:
    why = provider.said(told.get("task_status_msg") or "it does not say why")
    if _SAFETY.search(why):
        return SafetyFilterError(f"{TITLE} refuses this: {why}", "change prompt or picture")
    return UnknownError(f"{TITLE} failed: {why}", "try another picture or prompt")


def _charged(told: Mapping[str, JsonValue]) -> float | None:
    units = told.get("final_unit_deduction")
    try:
        return float(str(units)) * settings().kling_unit_usd if units is not None else None
    except ValueError:
        return None


def _code(answer: Answer) -> int:
    code = answer.fields.get("code")
    return code if isinstance(code, int) else 0


def _data(answer: Answer) -> Mapping[str, JsonValue]:
    data = answer.fields.get("data")
    return data if isinstance(data, dict) else {}


def _shown_ms(face: Mapping[str, JsonValue]) -> float:
    first, last = face.get("start_time"), face.get("end_time")
    told = isinstance(first, int | float) and isinstance(last, int | float)
    return float(cast("float", last)) - float(cast("float", first)) if told else 0.0
