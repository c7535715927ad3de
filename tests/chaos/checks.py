"""What must be true when the faults are over."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.results import ResultRecord
from prefect.serializers import JSONSerializer

from safelight.provenance.manifest import MANIFESTS, Manifest, RunResult
from safelight.store.results import PREFIX as RECORDS
from safelight.store.results import named_artifacts
from tests.chaos.campaign import PREFIX, Campaign, marked
from tests.chaos.faults import BY_HAND

DRAIN_SECONDS = 40.0
GONE_SECONDS = 30.0


def check(campaign: Campaign) -> None:
    """Enter every violation in the report; stops the workers on the way."""
    contents, first_seen = objects(campaign)
    found = campaign.report.violations
    found += runs_that_did_not_end(campaign)
    found += runs_that_went_on_after_their_end(campaign)
    found += pages_that_say_it_twice(campaign)
    found += artifacts_that_are_not_there(campaign, contents)
    found += results_that_are_not_there(campaign, contents)
    found += stages_that_ran_again(campaign, first_seen)
    found += what_does_not_stop(campaign)
    found += what_is_left_on_disk(campaign)


def objects(campaign: Campaign) -> tuple[dict[str, bytes], dict[str, float]]:
    """Content of every object, and when each was first there; read from the server's memory."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[campaign.s3.bucket]
    contents: dict[str, bytes] = {}
    first_seen: dict[str, float] = {}
    start = f"{PREFIX}/"
    for name, versions in bucket.keys.lists():
        key = name.removeprefix(start)
        contents[key] = versions[-1].value
        first_seen[key] = min(version.last_modified.timestamp() for version in versions)
    return contents, first_seen


def runs_that_did_not_end(campaign: Campaign) -> list[str]:
    """Every run is over, and Completed unless it was cancelled."""
    found = []
    for run in campaign.runs:
        if run in campaign.deleted:
            campaign.report.ends["deleted"] += 1
            continue
        ended = campaign.ended.get(run)
        # asked for again: what is set by hand may come just after the end that the run found
        state = campaign.ask(lambda client, run=run: client.read_flow_run(run)).state
        name = state.name if state else "no state"
        allowed = {"Completed"}
        if run in campaign.asked:
            allowed = {"Completed", "Cancelled"}
            name_of_end = f"{name}, asked to stop"
        elif run in campaign.by_hand:
            allowed = {campaign.by_hand[run].value.capitalize()}
            name_of_end = f"{name}, by hand"
        else:
            name_of_end = name
        campaign.report.ends[name_of_end] += 1
        if ended is None or name not in allowed:
            found.append(f"run {run} is {name}: {history(campaign, run)}")
    return found


def runs_that_went_on_after_their_end(campaign: Campaign) -> list[str]:
    """What was Completed or Cancelled stays that way."""
    found = []
    for run in campaign.runs:
        if run in campaign.deleted:
            continue
        states = campaign.ask(lambda client, run=run: client.read_flow_run_states(run))
        if gone_on(states):
            found.append(f"run {run} went on after its end: {history(campaign, run)}")
    return found


def gone_on(states: Iterable[State]) -> bool:
    """Whether any of a run's states follows its end, but for what somebody sets by hand."""
    in_order = sorted(states, key=lambda state: state.timestamp)
    by_hand = [at for at, state in enumerate(in_order) if state.message == BY_HAND]
    if by_hand:
        return by_hand[-1] != len(in_order) - 1
    names = [state.name for state in in_order]
    over = [at for at, name in enumerate(names) if name in ("Completed", "Cancelled")]
    return bool(over) and set(names[over[0] :]) != {names[over[0]]}


def pages_that_say_it_twice(campaign: Campaign) -> list[str]:
    """A completed run's page has each artifact once."""
    found = []
    for run, ended in campaign.ended.items():
        if ended.state is None or not ended.state.is_completed() or run in campaign.by_hand:
            continue
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        shown = campaign.ask(lambda client, only=only: client.read_artifacts(artifact_filter=only))
        # the server keeps what a state carries as an artifact without key and type, which no page
        # shows; a run that was handed on has two
        named = (artifact.key or artifact.type for artifact in shown)
        keys = Counter(name for name in named if name is not None)
        found += [
            f"the page of run {run} has {key} {count} times: {history(campaign, run)}"
            for key, count in keys.items()
            if count > 1
        ]
    return found


def history(campaign: Campaign, run: Any) -> str:
    """The states of a run, for people."""
    states = campaign.ask(lambda client: client.read_flow_run_states(run))
    return "; ".join(
        f"{state.timestamp.timestamp():.1f} {state.name} {state.message or ''}" for state in states
    )


def artifacts_that_are_not_there(campaign: Campaign, contents: dict[str, bytes]) -> list[str]:
    """Every artifact that a manifest or a record names is stored and has its sha256."""
    named: dict[str, str] = {}
    for key, content in contents.items():
        if key.startswith(MANIFESTS) and "/by-artifact/" not in key:
            manifest = Manifest.model_validate_json(content)
            for ref in (*manifest.artifacts, *manifest.inputs.values()):
                named[ref.uri.removeprefix("store:")] = f"manifest {key}"
        elif key.startswith(RECORDS):
            for artifact, _ in named_artifacts(content):
                named[artifact] = f"record {key}"
    campaign.report.facts["artifacts named"] = str(len(named))
    found = []
    for key, where in named.items():
        if key not in contents:
            found.append(f"{key}, named by {where}, is lost")
        elif hashlib.sha256(contents[key]).hexdigest() != Path(key).stem:
            found.append(f"{key}, named by {where}, is corrupt")
    return found


def results_that_are_not_there(campaign: Campaign, contents: dict[str, bytes]) -> list[str]:
    """A completed run has a manifest of success and a result that can be read."""
    found = []
    for run, ended in campaign.ended.items():
        if ended.state is None or not ended.state.is_completed() or run in campaign.by_hand:
            continue
        manifest = contents.get(f"{MANIFESTS}{run}.json")
        if manifest is None:
            found.append(f"run {run} is completed and has no manifest")
        elif not Manifest.model_validate_json(manifest).success:
            found.append(f"run {run} is completed and its manifest says it failed")
        key = getattr(ended.state.data, "storage_key", None)
        record = contents.get(f"{RECORDS}{key}")
        if record is None:
            found.append(f"run {run} is completed and its result {key} is lost")
        else:
            RunResult.model_validate(_result_in(record))
    return found


def _result_in(record: bytes) -> Any:
    """The result in a record; of a flow Prefect keeps the description elsewhere, in the state."""
    if "metadata" in json.loads(record):
        return ResultRecord.deserialize(record).result
    return JSONSerializer().loads(record)


def stages_that_ran_again(campaign: Campaign, first_seen: dict[str, float]) -> list[str]:
    """No stage began after its record was in the store."""
    found = []
    times: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in campaign.executions.read_text().splitlines():
        entry = json.loads(line)
        times[entry["key"]].append(entry)
    for key, entries in times.items():
        durable = first_seen.get(RECORDS + key)
        late = [entry for entry in entries if durable is not None and entry["at"] > durable]
        found += [f"{key} was durable at {durable} and ran again: {entry}" for entry in late]
    executions = sum(len(entries) for entries in times.values())
    campaign.report.facts["stages executed"] = f"{executions}, {len(times)} different"
    return found


def what_does_not_stop(campaign: Campaign) -> list[str]:
    """Workers end when asked to, and nothing outlives them."""
    found = []
    for worker in campaign.alive():
        status = worker.drain(DRAIN_SECONDS)
        if status != 0:
            found.append(f"worker {worker.name} ended with {status} when drained: {worker.log}")
    alive = len(campaign.alive())
    if alive:
        found.append(f"{alive} workers still run")
    end = time.monotonic() + GONE_SECONDS
    campaign.server.stop(signal.SIGTERM)
    while (left := marked(campaign.mark)) and time.monotonic() < end:
        time.sleep(0.2)
    for process in left:
        with suppress(psutil.Error):
            found.append(f"process {process.pid} is left: {' '.join(process.cmdline())}")
    return found


def what_is_left_on_disk(campaign: Campaign) -> list[str]:
    """Half-made files are gone once the next process has looked."""
    opening = "from safelight.store.store import current_store; current_store()"
    environment = {**os.environ, **campaign.environment}
    subprocess.run([sys.executable, "-c", opening], env=environment, check=True)
    left = [*campaign.volume.rglob("work-*"), *campaign.temporary.rglob("*")]
    return [f"{path} is left" for path in left]
