"""Checks the Prefect server: its version, deployments, work pools, workers and crashed runs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import prefect
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, temporary_settings

from safelight.cli.addresses import configured_api_url, source_of_api_url
from safelight.cli.findings import Finding, finding
from safelight.cli.left_deployments import is_ours, without_flow
from safelight.cli.pools import BATCHES
from safelight.cli.schedule_health import schedule_findings
from safelight.cli.server import silence
from safelight.cli.service_health import Services, service_findings, services
from safelight.cli.serving import POOL
from safelight.client.asking import refusal
from safelight.client.contracts import entrypoint
from safelight.client.paging import every_deployment, every_worker, pages
from safelight.loopback import is_loopback
from safelight.pool.announcing import Announcement, announced
from safelight.pool.configuration import BATCH_TYPE, POOL_TYPE
from safelight.provenance.surroundings import versions
from safelight.store.results import RESULTS

OUR_TYPES = (POOL_TYPE, BATCH_TYPE)
CRASHES_SINCE = timedelta(hours=24)
SHOWN_RUNS = 3
ASKED = (401, 403)
"""Answers of a server to somebody without its password."""


def server_findings() -> Iterator[Finding]:
    """Check the configured server; says so when there is none."""
    what = "prefect server"
    url = configured_api_url()
    if url is None:
        yield finding(what, "none configured: one is started when needed")
        return
    problem = silence(url)
    if problem is not None:
        source = source_of_api_url()
        found = f"{url}, which comes from {source}, does not answer: {problem}"
        yield finding(what, found, "problem", "start it, or take the address away there")
        return
    try:
        with get_client(sync_client=True) as client:
            yield _version(client, url)
            yield _password(url)
            yield _results(client)
            deployments = list(every_deployment(client))
            yield from _deployments(client, deployments)
            known = services(client)
            yield from schedule_findings(client, known.scheduler, deployments)
            yield from _services(client, known, deployments)
            yield from _runs(client)
    except httpx.HTTPError as error:
        told = refusal(error)
        yield finding(what, f"{url}: {told.problem}", "problem", told.remedy)


def _version(client: SyncPrefectClient, url: str) -> Finding:
    theirs, ours = client.api_version(), prefect.__version__
    found = f"{url} answers, version {theirs}"
    if theirs == ours:
        return finding("prefect server", found)
    older = Version(theirs) < Version(ours)
    return finding(
        "prefect server",
        f"{found}; installed here is {ours}",
        "problem" if older else "warning",
        f"upgrade the server to prefect {ours}" if older else f"install prefect {theirs} here",
    )


def _password(url: str) -> Finding:
    """Whether it answers strangers, and what somebody who has the password may do."""
    what = "server password"
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: None, PREFECT_API_KEY: None}),
        get_client(sync_client=True) as stranger,
    ):
        try:
            stranger.request("GET", "/admin/version")
        except httpx.HTTPStatusError as error:
            if error.response.status_code in ASKED:
                return finding(
                    what,
                    "it asks for one. Whoever has it may make deployments, and so run code on "
                    "every worker: for operators only, see docs/security.md",
                )
            raise
    alone = is_loopback(urlsplit(url).hostname or "")
    who = "whoever runs a program on this machine" if alone else "whoever reaches it"
    return finding(
        what,
        f"it asks for none: {who} may make deployments, and so run code on every worker",
        "warning",
        "set PREFECT_SERVER_API_AUTH_STRING for the server and PREFECT_API_AUTH_STRING for all "
        "that use it, then start them again",
    )


def _results(client: SyncPrefectClient) -> Finding:
    kind, name = RESULTS.split("/", 1)
    try:
        client.read_block_document_by_name(name, block_type_slug=kind)
    except ObjectNotFound:
        return finding(
            "result block", f"{RESULTS} is not registered", "problem", "run: safelight deploy"
        )
    return finding("result block", f"{RESULTS} is registered")


def _services(
    client: SyncPrefectClient, known: Services, deployments: list[DeploymentResponse]
) -> Iterator[Finding]:
    pools = {deployment.work_pool_name for deployment in deployments}
    staged = {
        found.id
        for found in deployments
        if is_ours(found) and found.entrypoint != entrypoint("batch")
    }
    yield from service_findings(client, known, sorted(name for name in pools if name), staged)


def _deployments(
    client: SyncPrefectClient, deployments: list[DeploymentResponse]
) -> Iterator[Finding]:
    ours = [found for found in deployments if is_ours(found)]
    stray = sum(not deployment.work_pool_name for deployment in ours)
    well = bool(ours) and not stray
    yield finding(
        "deployments",
        f"{len(ours)} of our flows" + (f", {stray} of them without a work pool" if stray else ""),
        "ok" if well else "problem",
        "" if well else "run: safelight deploy",
    )
    for left in without_flow(ours):
        yield finding(
            f"deployment {left.name}",
            f"this checkout has no {left.entrypoint}: its runs crash",
            "warning",
            f"run: prefect deployment delete {left.name}/{left.name}",
        )
    for name in sorted({found.work_pool_name for found in ours if found.work_pool_name} or {POOL}):
        yield from _pool(client, name)


def _pool(client: SyncPrefectClient, name: str) -> Iterator[Finding]:
    what = f"work pool {name}"
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        remedy = f"run: safelight deploy --pool {name}"
        yield finding(what, "there is none", "problem", remedy)
        return
    if pool.is_paused:
        remedy = f"run: prefect work-pool resume {name}"
        yield finding(what, f"type {pool.type}, paused: no run starts", "problem", remedy)
    elif name == BATCHES and pool.type != BATCH_TYPE:
        yield finding(
            what,
            f"type {pool.type}: a batch whose worker or machine is gone stays Running for ever",
            "problem",
            "run: safelight deploy",
        )
    elif pool.type not in OUR_TYPES:
        yield finding(
            what,
            f"type {pool.type}: every run starts a process and loads its models anew",
            "warning",
            f"use a pool of type {POOL_TYPE}: safelight deploy --pool {POOL}",
        )
    else:
        yield finding(what, f"type {pool.type}")
    yield from _workers(client, pool)


def _workers(client: SyncPrefectClient, pool: WorkPool) -> Iterator[Finding]:
    online = [worker for worker in every_worker(client, pool.name) if worker.status == "ONLINE"]
    if not online:
        yield finding(
            f"workers of {pool.name}",
            "none is online, so no run starts",
            "problem",
            f"run: prefect worker start --pool {pool.name}",
        )
    if pool.type not in OUR_TYPES:
        if online:
            yield finding(f"workers of {pool.name}", ", ".join(worker.name for worker in online))
        return
    told = announced(client, pool.name, [worker.name for worker in online])
    for worker in online:
        yield _worker(worker.name, told.get(worker.name))


def _worker(name: str, told: Announcement | None) -> Finding:
    what = f"worker {name}"
    if told is None:
        return finding(
            what, "online, but did not say what it runs with", "warning", "start it again"
        )
    devices = ", ".join(f"{device} {gib:.0f} GiB" for device, gib in told.devices.items())
    online = f"online on {devices}" if devices else "online"
    ours = versions()
    differing = [
        f"{package} {told.versions.get(package, 'missing')} instead of {ours.get(package, 'none')}"
        for package in sorted(ours.keys() | told.versions.keys())
        if ours.get(package) != told.versions.get(package)
    ]
    if not differing:
        return finding(what, f"{online}, versions as here")
    return finding(
        what,
        f"{online}, with {', '.join(differing)}",
        "warning",
        "install the same versions on both machines, then start the worker again",
    )


def _runs(client: SyncPrefectClient) -> Iterator[Finding]:
    since = datetime.now(UTC) - CRASHES_SINCE
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        start_time=FlowRunFilterStartTime(after_=since),  # pyright: ignore[reportArgumentType]
    )
    crashed = list(
        pages(
            lambda offset: client.read_flow_runs(
                flow_run_filter=ended, sort=FlowRunSort.START_TIME_DESC, offset=offset
            )
        )
    )
    found = f"{len(crashed)} in the last {CRASHES_SINCE // timedelta(hours=1)} hours"
    yield finding(
        "crashed runs",
        ": ".join([found, *([_listed(crashed)] if crashed else [])]),
        "warning" if crashed else "ok",
        f"read why: prefect flow-run logs {crashed[0].id}" if crashed else "",
    )
    waiting = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])))
    late = list(
        pages(
            lambda offset: client.read_flow_runs(
                flow_run_filter=waiting, sort=FlowRunSort.ID_DESC, offset=offset
            )
        )
    )
    yield finding(
        "late runs",
        f"{len(late)} are due and not started",
        "warning" if late else "ok",
        "start more workers, or look at the work pools and workers above" if late else "",
    )


def _listed(runs: list[FlowRun]) -> str:
    shown = [
        f"{run.name} ({run.state.message if run.state else 'no state'})"
        for run in runs[:SHOWN_RUNS]
    ]
    return "; ".join([*shown, *(["..."] if len(runs) > SHOWN_RUNS else [])])
