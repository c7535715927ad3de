"""Every new file of a folder through one flow, once."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from prefect.logging import get_run_logger
from pydantic import Field, JsonValue

from flows.batching.dispatching import Dispatch, Where, find_workers
from flows.batching.gathering import media_field
from flows.batching.notices import tell_round
from flows.batching.reading.rows import Row
from flows.batching.requests import check_requests, find_target, seeded
from flows.running.checking import RecordedFlow
from flows.running.recorded import recorded_flow
from flows.running.signature import parameters_model
from safelight.errors import ForbiddenPathError
from safelight.exports.template import LONGEST_TEMPLATE, parse, result_template
from safelight.progress import pause
from safelight.provenance.batches import BatchReport
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import allowed_folder
from safelight.watching.ledger import Ledger, watch_id
from safelight.watching.opening import S3, allowed_to_change, open_watched
from safelight.watching.watch import Look, Told, Watch
from tasks.base.recorder import recorder

NOTHING: dict[str, JsonValue] = {}
POLL_SECONDS = 2.0
MOST_TOLD = 200
"""Files that the result names; the ledger has all."""
_Location = Annotated[str, Field(min_length=1, max_length=4096)]


@recorded_flow
def watch(
    folder: Annotated[
        _Location,
        Field(
            description="Looked into, with all below it: under the volume root or "
            "SAFELIGHT_INPUT_ROOTS, or an s3:// prefix of SAFELIGHT_WATCH_ROOTS."
        ),
    ],
    flow: Annotated[
        str, Field(min_length=1, max_length=100, description="The flow that each file runs.")
    ],
    to: Annotated[
        _Location,
        Field(
            description="For results: below exports/ of the volume, or in SAFELIGHT_WATCH_ROOTS."
        ),
    ],
    parameters: Annotated[
        dict[str, JsonValue], Field(description="Given to every request beside its file.")
    ] = NOTHING,
    original: Annotated[
        Literal["keep", "move", "delete"],
        Field(description="What becomes of a file when its results are there."),
    ] = "keep",
    names: Annotated[
        str | None,
        Field(
            max_length=LONGEST_TEMPLATE,
            description="Template of the results' names. None: as SAFELIGHT_RESULT_NAMES says.",
        ),
    ] = None,
    settle_seconds: Annotated[
        float, Field(ge=0, le=3600, description="A file that is the same for so long is whole.")
    ] = 5.0,
    for_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=7 * 86400,
            description="Goes on looking for so long. 0: until nothing is left to do.",
        ),
    ] = 0.0,
    parallel: Annotated[
        int, Field(ge=1, le=64, description="Requests that are under way at once.")
    ] = 4,
    retries: Annotated[
        int, Field(ge=0, le=10, description="More tries for a request whose failure may pass.")
    ] = 1,
    where: Annotated[Where, Field(description="On workers or here, as in a batch.")] = "auto",
    shards: Annotated[
        bool | None, Field(description="On workers: many requests in one flow run, as in a batch.")
    ] = None,
) -> list[ArtifactRef]:
    """Take what is new in a folder through a flow, and put the results into another."""
    target = find_target(flow)
    taken = media_field(target)
    model = parameters_model(target.fn)
    template = (
        result_template(model.model_fields)
        if names is None
        else parse(names, "watch: names", model.model_fields)
    )
    place = allowed_to_change(to)
    source, results = open_watched(_watched(folder, original), place, private=True)
    identity = watch_id(flow, parameters, place)

    def run(requests: Sequence[tuple[str, dict[str, JsonValue]]]) -> BatchReport:
        rows = [Row(name, values) for name, values in requests]
        return _run(target, rows, parameters, identity, parallel, retries, where, shards=shards)

    check_requests(target, [Row("watch", {taken.name: "store:uploads/x"})], parameters)
    watched = Watch(
        source=source,
        place=results,
        ledger=Ledger(identity),
        takes=(taken.name, taken.kind),
        run=run,
        template=template,
        original=original,
        settle_seconds=settle_seconds,
    )

    def tell(told: Sequence[Told]) -> None:
        made = [each.result for each in told if each.state == "done"]
        errors = [each.error for each in told if each.state == "refused"]
        tell_round(made, errors, flow, folder, place)

    return _looked(watched, for_seconds, tell)


def _watched(folder: str, original: str) -> str:
    """The folder, when this run may look into it, and change it where that is asked for."""
    if folder.startswith(S3) or original != "keep":
        return allowed_to_change(folder)
    found = allowed_folder(folder)
    if found is None:
        raise ForbiddenPathError(f"{folder[:200]} is no folder", "name a folder to watch")
    return str(found)


def _looked(
    watched: Watch, for_seconds: float, tell: Callable[[Sequence[Told]], None]
) -> list[ArtifactRef]:
    log, end = get_run_logger(), time.monotonic() + for_seconds
    counts = {"done": 0, "refused": 0, "tried": 0}
    told: list[JsonValue] = []
    untold: list[Told] = []
    while True:
        look: Look = watched.look()
        for each in look.told:
            counts[each.state] += 1
            log.info("%s %s: %s", each.name, each.state, each.text)
            if len(told) < MOST_TOLD:
                told.append(f"{each.name} {each.state}: {each.text}")
        untold += look.told
        recorder().answer.update({"watch": {**counts}, "files": [*told]})
        if not look.waiting and untold:
            tell(untold)
            untold = []
        if not look.waiting and time.monotonic() >= end:
            return []
        pause(POLL_SECONDS)


def _run(
    target: RecordedFlow[...],
    rows: Sequence[Row],
    parameters: dict[str, JsonValue],
    identity: str,
    parallel: int,
    retries: int,
    where: Where,
    *,
    shards: bool | None,
) -> BatchReport:
    key = f"watch-{identity}"
    checked = check_requests(target, rows, parameters)
    if "seed" in parameters_model(target.fn).model_fields:
        checked = [seeded(request, key) for request in checked]
    deployment = find_workers(target.name, where)
    dispatch = Dispatch(target, checked, key, parallel, retries, shards)
    dispatch.run(deployment)
    return BatchReport(
        flow_run_id=identity,
        flow=target.name,
        batch=key,
        ran="workers" if deployment else "here",
        requests=len(checked),
        outcomes=tuple(dispatch.outcomes.in_order()),
    )
