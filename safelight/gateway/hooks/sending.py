"""Sends what web hooks are told, signed as https://www.standardwebhooks.com says, again and again.

What is to be told is written down before it is sent, and ends of jobs that came while no gateway
ran are asked for when one starts. So nothing is lost; something may be told twice, with one id.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from anyio.to_thread import run_sync
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event

from safelight.errors import MissingFileError, PipelineError
from safelight.gateway.files import artifacts_of
from safelight.gateway.hooks.addresses import addresses, place_of
from safelight.gateway.hooks.records import (
    Delivery,
    KeptHook,
    all_hooks,
    deliveries,
    find_hook,
    keep_delivery,
    keep_seen,
    seen_until,
)
from safelight.gateway.jobs import Flows, Job, find_job, status_of
from safelight.gateway.steering import HOOK_TAG
from safelight.gateway.workflows import type_of
from safelight.installed import version
from safelight.reports import as_known
from safelight.store.store import current_store

LOG = logging.getLogger(__name__)
PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds after each try that was not taken; after the last it is given up."""
AT_ONCE = 8
PAUSE_SECONDS = 0.5
"""Between two looks at the most."""
LOOK_SECONDS = 60.0
"""Between two looks for ends that no event told of."""
LATE = timedelta(minutes=5)
"""Ends are looked for from so long before the last that was seen: clocks differ."""
KEPT = timedelta(days=7)
"""How long deliveries that are done are kept."""
ANSWER_SECONDS = 15.0
PAGE = 100
FINAL = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class Sender:
    """Tells web hooks of the ends of jobs."""

    def __init__(self, client: SyncPrefectClient, flows: Flows) -> None:
        self._client = client
        self._flows = flows
        self._look = asyncio.Event()
        self._known: dict[str, Delivery] | None = None

    def ended(self, _job_id: UUID, event: Event) -> None:
        """A run's state has changed; called for every event of one."""
        if event.resource.get("prefect.state-type") in FINAL:
            self._look.set()

    def look(self) -> None:
        """Look for ends, and for what is to be sent, now."""
        self._look.set()

    async def run(self) -> None:
        """Look and send until it is cancelled."""
        wait = 0.0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), wait)
            self._look.clear()
            try:
                due, wait = await run_sync(self._due)
                gate = asyncio.Semaphore(AT_ONCE)
                await asyncio.gather(*(self._send(each, gate) for each in due))
            except Exception as error:  # noqa: BLE001  (the edge: it is tried again)
                LOG.warning("web hooks are not told at the moment: %s", as_known(error))
                wait = LOOK_SECONDS
            await asyncio.sleep(PAUSE_SECONDS)

    def _due(self) -> tuple[list[Delivery], float]:
        """What is to be sent now, and the seconds until something more is."""
        hooks = all_hooks()
        if not hooks:
            return [], LOOK_SECONDS
        if self._known is None:  # what an earlier gateway left
            self._known = {each.key: each for each in deliveries()}
        known = self._known
        known |= {each.key: each for each in self._new(hooks, known.keys())}
        now = datetime.now(UTC)
        for key in [key for key, each in known.items() if each.done and each.ended_at < now - KEPT]:
            current_store().backend.delete(key)
            del known[key]
        waiting = [each for each in known.values() if not each.done]
        later = [(each.next_at - now).total_seconds() for each in waiting if each.next_at > now]
        return [each for each in waiting if each.next_at <= now], min([*later, LOOK_SECONDS])

    def _new(self, hooks: Sequence[KeptHook], known: Collection[str]) -> list[Delivery]:
        """Deliveries of ends that were not looked at before; written down."""
        begun = datetime.now(UTC)
        since = max(seen_until(), min(hook.created_at for hook in hooks))
        found: list[Delivery] = []
        for run in self._ended_since(since - LATE):
            for hook in hooks:
                if not self._wants(hook, run):
                    continue
                delivery = Delivery(
                    hook_id=hook.id,
                    job_id=run.id,
                    state_id=run.state_id or run.id,
                    ended_at=run.end_time or begun,
                    next_at=begun,
                )
                if delivery.key not in known:
                    keep_delivery(delivery)
                    found.append(delivery)
        keep_seen(begun)
        return found

    def _ended_since(self, since: datetime) -> list[FlowRun]:
        found: list[FlowRun] = []
        wanted = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(FINAL))),
            end_time=FlowRunFilterEndTime.model_validate({"after_": since}),
        )
        while True:
            page = self._client.read_flow_runs(
                flow_run_filter=wanted,
                sort=FlowRunSort.END_TIME_DESC,
                limit=PAGE,
                offset=len(found),
            )
            found += page
            if len(page) < PAGE:
                return found

    def _wants(self, hook: KeptHook, run: FlowRun) -> bool:
        kind = type_of(self._flows.name(run.flow_id))
        ended = run.end_time
        if run.deployment_id is None or kind is None or ended is None:
            return False
        if hook.named and HOOK_TAG + hook.id not in run.tags:
            return False
        return (
            ended >= hook.created_at
            and status_of(run.state) in hook.statuses
            and (not hook.workflow_types or kind in hook.workflow_types)
        )

    async def _send(self, delivery: Delivery, gate: asyncio.Semaphore) -> None:
        async with gate:
            tried = await run_sync(self._tried, delivery)
            if self._known is not None:
                self._known[tried.key] = tried
            await run_sync(keep_delivery, tried)

    def _tried(self, delivery: Delivery) -> Delivery:
        """A delivery after one more try."""
        now, tries = datetime.now(UTC), delivery.tries + 1
        done = {"tries": tries, "done": True}
        try:
            hook = find_hook(delivery.hook_id)
            job = find_job(self._client, self._flows, delivery.job_id)
        except MissingFileError as error:  # hook or job are gone
            return delivery.model_copy(update={**done, "last": error.problem})
        try:
            status = send(hook, delivery, body_of(job, delivery))
        except PipelineError as error:
            said = str(error)
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            if 200 <= status < 300:
                return delivery.model_copy(update={**done, "last": f"taken: {status}"})
            said = f"answered {status}" + (", redirects are not followed" * (300 <= status < 400))
        if tries > len(PAUSES):
            return delivery.model_copy(update={**done, "last": f"given up: {said}"})
        again = now + timedelta(seconds=PAUSES[tries - 1])
        return delivery.model_copy(update={"tries": tries, "next_at": again, "last": said})


def body_of(job: Job, delivery: Delivery) -> bytes:
    """What is told of the end of a job."""
    said: dict[str, Any] = {
        "type": f"job.{job.status.value.lower()}",
        "timestamp": delivery.ended_at.isoformat(),
        "data": {
            "job": job.model_dump(mode="json"),
            "artifacts": [
                each.model_dump(mode="json", exclude={"metadata"})
                for each in artifacts_of(job.id).artifacts
                if each.role == "result"
            ],
        },
    }
    return httpx.Request("POST", "http://none", json=said).content


def signature(secret: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{stamp}.".encode() + body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def send(hook: KeptHook, delivery: Delivery, body: bytes) -> int:
    """Send once, to an address that was looked up and found allowed just now; the status.

    Raises:
        ForbiddenAddressError: the host has an address that may not be called.
        EngineOfflineError: it has none.
        httpx.HTTPError: nobody answers.
    """
    place = place_of(hook.url)
    (address, *_) = addresses(place)
    stamp = int(datetime.now(UTC).timestamp())
    headers = {
        "Host": place.name,
        "Content-Type": "application/json",
        "User-Agent": f"safelight/{version('safelight')}",
        "Webhook-Id": delivery.message_id,
        "Webhook-Timestamp": str(stamp),
        "Webhook-Signature": signature(hook.key, delivery.message_id, stamp, body),
    }
    with (
        httpx.Client(timeout=ANSWER_SECONDS, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "POST",
            place.at(address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": place.host},
        ) as answer,
    ):
        return answer.status_code
