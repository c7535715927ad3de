"""One request to the queue of fal, which knows no id of ours."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import JsonValue

from safelight.engines.fal.refusals import TITLE, by_fal, refusal
from safelight.engines.remote.asking import Answer, LostError, Provider
from safelight.engines.remote.fetching import Source, own_of
from safelight.engines.remote.jobs import AfterLoss, Calls, Looked, Taken
from safelight.engines.remote.uploading import put_file
from safelight.errors import ContractMismatchError, SafetyFilterError
from safelight.settings import settings

ENGINE_ID = "provider_fal"
QUEUES = ("queue.fal.run", "queue.falrun.com")
"""Its queue and the one that stands in for it."""


class FalCalls(Calls):
    """One request to the queue."""

    engine_id: ClassVar[str] = ENGINE_ID
    after_loss: ClassVar[AfterLoss] = "unknown"

    def __init__(
        self,
        provider: Provider,
        endpoint: str,
        body: Mapping[str, JsonValue],
        picture: bytes | None,
    ) -> None:
        self._provider = provider
        self._endpoint = endpoint
        self._body = body
        self._picture = picture

    def prepared(self) -> JsonValue:
        """The input of the model, its picture in fal's storage."""
        if self._picture is None:
            return dict(self._body)
        url = f"{settings().fal_storage_url.rstrip('/')}/storage/upload/initiate?storage_type=gcs"
        asked: dict[str, JsonValue] = {"content_type": "image/png", "file_name": "picture.png"}
        answer = self._provider.ask("POST", url, head(), asked)
        if not answer.good:
            raise refusal(self._provider, answer)
        places = answer.fields.get("upload_url"), answer.fields.get("file_url")
        if not all(isinstance(place, str) for place in places):
            raise ContractMismatchError(f"{TITLE} names no address for a file", "try again later")
        put_file(self._provider, storage(), str(places[0]), self._picture, "image/png")
        return {**self._body, "image_url": str(places[1])}

    def submit(self, task: str, sent: JsonValue) -> Taken:
        """See `Calls.submit`; an answer that breaks off behind its head has told the id."""
        del task
        url = f"{settings().fal_url.rstrip('/')}/{self._endpoint}"
        try:
            answer = self._provider.ask("POST", url, head(), sent)
        except LostError as error:
            known = error.headers.get("x-fal-request-id", "")
            if not known:
                raise
            return self._taken(known, {})
        told = answer.fields
        if answer.status >= 500 and not by_fal(answer):
            raise LostError(f"what stands before {TITLE} answers {answer.status}", "wait")
        if not answer.good:
            raise refusal(self._provider, answer)
        known = told.get("request_id") or answer.headers.get("x-fal-request-id")
        if not isinstance(known, str):
            raise LostError(f"{TITLE} answers without an id of the request", "wait")
        return self._taken(known, told)

    def look(self, taken: Taken) -> Looked:
        """See `Calls.look`."""
        status = self._provider.ask("GET", taken.urls["status"], head())
        if not status.good:
            raise refusal(self._provider, status)
        if status.fields.get("status") != "COMPLETED":
            return Looked("waiting")
        answer = self._provider.ask("GET", taken.urls["response"], head())
        if answer.good:
            return _made(answer)
        error = refusal(self._provider, answer)
        # a fault of the queue itself, which says nothing of the request
        if answer.status == 429 or (answer.status >= 500 and not by_fal(answer)):
            raise error
        error.charged = answer.status == 422  # the model ran: faults of the server are free
        return Looked("failed", error=error)

    def cancel(self, taken: Taken) -> bool:
        """See `Calls.cancel`."""
        answer = self._provider.ask("PUT", taken.urls["cancel"], head())
        return answer.status in (200, 202)

    def _taken(self, known: str, told: Mapping[str, JsonValue]) -> Taken:
        """Its addresses, where the key may be sent: as told, or as they follow from its id."""
        owner, app = self._endpoint.split("/")[:2]
        base = f"{settings().fal_url.rstrip('/')}/{owner}/{app}/requests/{known}"
        usual = {"status": f"{base}/status", "response": base, "cancel": f"{base}/cancel"}
        for name in usual:
            place = told.get(f"{name}_url")
            if isinstance(place, str) and _is_queue(place):
                usual[name] = place
        return Taken(known, usual)


def _made(answer: Answer) -> Looked:
    told = answer.fields
    flags = told.get("has_nsfw_concepts")
    if isinstance(flags, list) and any(flags):
        error = SafetyFilterError(f"{TITLE} blackened what it drew", "change the prompt")
        error.charged = True
        return Looked("failed", error=error)
    images, video = told.get("images"), told.get("video")
    listed = cast("list[Any]", images) if isinstance(images, list) else [video]
    urls = [str(each["url"]) for each in listed if isinstance(each, dict) and "url" in each]
    return Looked("done", files=tuple(urls), told=told)


def head() -> dict[str, str]:
    """What carries the key."""
    key = settings().fal_key
    return {"Authorization": f"Key {key.get_secret_value().strip() if key else ''}"}


def source() -> Source:
    """Whom results come from."""
    return Source(TITLE, own_of(settings().fal_url))


def storage() -> Source:
    """Who takes files."""
    return Source(TITLE, own_of(settings().fal_storage_url))


def _is_queue(place: str) -> bool:
    base = urlsplit(settings().fal_url)
    with suppress(ValueError):
        parts = urlsplit(place)
        same = (parts.scheme, parts.netloc) == (base.scheme, base.netloc)
        return same or (parts.scheme == "https" and {parts.netloc, base.netloc} <= set(QUEUES))
    return False
