"""Questions to the Prefect server: what passes is asked again, what stays is said with a code.

The only place that decides so. Clients of the server are opened here, so that every question they
are used for is asked in this way.
"""

import logging
import os
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import certifi
import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_CLIENT_MAX_RETRIES,
    Settings,
)

from safelight.errors import (
    AuthInvalidError,
    ContractMismatchError,
    DependencyMissingError,
    EngineOfflineError,
    InvalidFieldValueError,
    PipelineError,
)
from safelight.observing.correlating import name_id
from safelight.progress import pause
from safelight.store.answers import retry_after

T = TypeVar("T")
LOG = logging.getLogger(__name__)
PATIENCE_SECONDS = 300.0
"""How long the server may be away before a question is given up."""
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 5.0
"""The pause between two tries doubles from the first to the longest."""
LONGEST_TEXT = 500
"""Characters of an answer that an error repeats."""
_Opened = tuple[SyncPrefectClient, SettingsContext]
_kept: list[tuple[Settings, _Opened]] = []
"""The client of `keep_client`, with the settings that it is for."""
_without_retries: list[tuple[Settings, Settings]] = []
"""The settings of the last client, and what was made of them."""


@dataclass(frozen=True)
class Rule:
    """Answers of one meaning."""

    meaning: str
    """What the error says of the server."""
    error: type[PipelineError]
    """Its class: whether it passes, and its code."""
    remedy: str
    """What to do."""
    statuses: tuple[int, ...] = ()
    """Of HTTP."""


PASSING = Rule(
    "is away, or too busy to answer",
    EngineOfflineError,
    "look at the Prefect server; what has begun goes on meanwhile",
    (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529),
)
NO_ADDRESS = Rule(
    "has an address that cannot be asked", InvalidFieldValueError, "correct PREFECT_API_URL"
)
UNKNOWN_CERTIFICATE = Rule(
    "shows a certificate that is not trusted here",
    InvalidFieldValueError,
    "name its authority in PREFECT_API_SSL_CERT_FILE",
)
RULES = (
    PASSING,
    Rule(
        "refused the token",
        AuthInvalidError,
        "correct PREFECT_API_AUTH_STRING or PREFECT_API_KEY",
        (401, 403, 407),
    ),
    Rule(
        "does not know what was asked",
        DependencyMissingError,
        "correct PREFECT_API_URL, or bring the server to this version",
        (301, 302, 307, 308, 404, 405, 410, 501, 505),
    ),
    Rule(
        "refused what was sent",
        InvalidFieldValueError,
        "correct the field it names",
        (400, 409, 413, 422),
    ),
)
OTHER = Rule(
    "gave an answer that nobody expects",
    ContractMismatchError,
    "look at the log of the server and at what lies between",
)


def rule_for(error: httpx.HTTPError) -> Rule:
    """What the failure of a question means."""
    if isinstance(error, httpx.HTTPStatusError):
        return _rule_for_answer(error.response)
    if isinstance(error, httpx.UnsupportedProtocol):
        return NO_ADDRESS
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UNKNOWN_CERTIFICATE
    return PASSING if isinstance(error, httpx.TransportError) else OTHER


def _rule_for_answer(answer: httpx.Response) -> Rule:
    status = answer.status_code
    # the client has fetched another token by now; servers forget theirs when they start again
    if status == 403 and "Invalid CSRF token" in answer.text:
        return PASSING
    known = next((rule for rule in RULES if status in rule.statuses), None)
    return known or (PASSING if status >= 500 else OTHER)


def passes(error: httpx.HTTPError) -> bool:
    """Whether the same question may be answered a moment later."""
    return rule_for(error) is PASSING


def refusal(error: httpx.HTTPError, what: str = "") -> PipelineError:
    """The error for a question that failed.

    Args:
        error: how.
        what: what was asked, for the message.
    """
    rule = rule_for(error)
    if isinstance(error, httpx.HTTPStatusError):
        text = " ".join(error.response.text[:LONGEST_TEXT].split())
        said = f"{error.response.status_code} {text}".strip()
    else:
        said = str(error) or type(error).__name__
    asked = f" ({what})" if what else ""
    return rule.error(f"the Prefect server {rule.meaning}{asked}: {said}", rule.remedy)


def ask(
    question: Callable[[], T],
    what: str = "",
    *,
    seconds: float = PATIENCE_SECONDS,
    stops: bool = True,
) -> T:
    """Ask the server, again and again while the failure is one that passes.

    A question may be asked twice though it was heard: what it changes must bear that.

    Args:
        question: calls the client; may raise what the client raises.
        what: what is asked, for the message.
        seconds: after this much time the next failure is raised.
        stops: whether a run that is asked to stop waits no longer.

    Raises:
        EngineOfflineError: it did not answer for so long.
        PipelineError: it refused; see `RULES`.
        StopRequestedError: the run was asked to stop while the server did not answer.
    """
    end = time.monotonic() + seconds
    between, lost = FIRST_SECONDS, False
    while True:
        try:
            answer = question()
        except httpx.HTTPError as error:
            left = end - time.monotonic()
            if left <= 0 or not passes(error):
                raise refusal(error, what) from error
            if not lost:
                LOG.warning("%s; asking again for %.0f s", refusal(error, what).problem, left)
            lost = True
            wanted = min(max(between, _asked_pause(error)), left)
        else:
            if lost:
                LOG.warning("the Prefect server answers again")
            return answer
        if stops:
            pause(wanted)
        else:
            time.sleep(wanted)
        between = min(2 * between, LONGEST_SECONDS)


@contextmanager
def patient_client(
    seconds: float = PATIENCE_SECONDS, *, stops: bool = True
) -> Generator[SyncPrefectClient]:
    """A client of the configured server that asks every question by `ask`.

    Args:
        seconds: of patience, see `ask`; a server that used it up is asked once by each further
            question, until it answers one.
        stops: see `ask`.

    Prefect's own repetition is off: it knows neither 500 nor a request to stop.
    """
    known = get_settings_context()
    with _kept_for(known) or _opened(known) as (client, context):
        asking = _Asking(client, context, seconds, stops=stops)
        yield cast("SyncPrefectClient", asking)


@contextmanager
def keep_client() -> Generator[None]:
    """Have each `patient_client` of this process that has the settings of now use one open client.

    For a process that runs one short run after another: opening a client takes as long as several
    questions.
    """
    known = get_settings_context()
    with _opened(known) as opened:
        _kept.append((known.settings, opened))
        try:
            yield
        finally:
            _kept.clear()


def _kept_for(known: SettingsContext) -> nullcontext[_Opened] | None:
    opened = next((opened for settings, opened in _kept if settings is known.settings), None)
    return nullcontext(opened) if opened is not None else None


@contextmanager
def _opened(known: SettingsContext) -> Generator[_Opened]:
    once = _asking_once(known.settings)
    hooks = {"request": [name_id], "response": [_refuse_at_once]}
    own = {"event_hooks": hooks, **_authorities()}
    with get_client(sync_client=True, httpx_settings=own) as client:
        yield client, SettingsContext(profile=known.profile, settings=once)


def _asking_once(given: Settings) -> Settings:
    """These settings without Prefect's own repetition: making them takes as long as questions."""
    for known, once in tuple(_without_retries):
        if known is given:
            return once
    once = given.copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0})
    _without_retries[:] = [(given, once)]
    return once


def _authorities() -> dict[str, ssl.SSLContext]:
    """Whom to trust, read once: each client of Prefect's reads it anew, for 20 ms.

    Nothing where Prefect is to trust everybody, or where there is no such file: it says so.
    """
    file = PREFECT_API_SSL_CERT_FILE.value() or certifi.where()
    if PREFECT_API_TLS_INSECURE_SKIP_VERIFY.value():
        return {}
    try:
        changed = os.stat(file).st_mtime_ns
    except OSError:
        return {}
    return {"verify": _trusting(file, changed)}


@lru_cache(maxsize=2)
def _trusting(file: str, changed: int) -> ssl.SSLContext:
    del changed
    return ssl.create_default_context(cafile=file)


class _Asking:
    """Hands everything to a client, questions by way of `ask`."""

    def __init__(
        self, client: SyncPrefectClient, once: SettingsContext, seconds: float, *, stops: bool
    ) -> None:
        self._client = client
        self._once = once
        self._seconds = seconds
        self._stops = stops
        self._given_up = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever the client has)
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def asked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (of the client's method)
            def question() -> Any:  # noqa: ANN401  (of the client's method)
                with self._once.model_copy():
                    return found(*args, **kwargs)

            return self._ask(question, name.replace("_", " "))

        return asked

    def _ask(self, question: Callable[[], Any], what: str) -> Any:  # noqa: ANN401  (its answer)
        # a server that was waited for in vain is asked once more by each further question
        seconds = 0.0 if self._given_up else self._seconds
        try:
            answer = ask(question, what, seconds=seconds, stops=self._stops)
        except EngineOfflineError:
            self._given_up = True
            raise
        self._given_up = False
        return answer


def _refuse_at_once(answer: httpx.Response) -> None:
    """Raise before Prefect's client sleeps on it, which it does even when it asks once only."""
    if answer.status_code in PASSING.statuses:
        answer.read()
        answer.raise_for_status()


def _asked_pause(error: httpx.HTTPError) -> float:
    if not isinstance(error, httpx.HTTPStatusError):
        return 0.0
    return retry_after(error.response.headers.get("retry-after")) or 0.0
