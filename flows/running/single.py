"""Flows of one stage, with the stage's own parameters as their form."""

import inspect
from collections.abc import Callable
from typing import Any

from flows.running.checking import RecordedFlow
from flows.running.inputs import ingest_media, ingest_several
from flows.running.recorded import recorded_flow
from flows.running.signature import wear
from safelight.params import checked
from safelight.store.artifact import ArtifactRef, MediaKind
from tasks.base.stage import Stage


def stage_flow(
    stage: Stage[..., Any],
    after: Callable[..., list[ArtifactRef]] | None = None,
    before: Callable[..., Any] | None = None,
    ahead: Callable[..., None] | None = None,
    **media: tuple[MediaKind, ...],
) -> RecordedFlow[...]:
    """A flow that runs one stage.

    Args:
        stage: the stage; each of its parameters becomes one of the flow's.
        after: called with what the stage made and its parameters, for more that can be switched on
            with it; each further parameter it has becomes one of the flow's.
        before: called with the stage's parameters, gives those that it is run with; each further
            parameter it has becomes one of the flow's.
        ahead: called with what the stage is run with and what `after` has besides, before the stage
            runs: says how many stages will run, and refuses what would fail later.
        media: name of each media parameter, in the order of the stage's references, to the kinds
            it may have.
    """
    fields = stage.params_type.model_fields

    def body(**called: Any) -> ArtifactRef | list[ArtifactRef]:  # noqa: ANN401
        refs = [
            ingest_several(name, called[name], kinds)
            if isinstance(called[name], list)
            else ingest_media(name, called[name], kinds)
            for name, kinds in media.items()
        ]
        given = {name: value for name, value in called.items() if name in fields}
        params = checked(stage.params_type, stage.name, **given)
        if before is not None:
            params = before(params, **{n: called[n] for n in changes})
        switched = {n: called[n] for n in switches}
        if ahead is not None:
            ahead(params, **switched)
        made = stage(*refs, params)
        return made if after is None else after(made, params, **switched)

    switches = [] if after is None else list(inspect.signature(after).parameters)[2:]
    changes = [] if before is None else list(inspect.signature(before).parameters)[1:]
    wear(body, stage, media, after, before)
    return recorded_flow(body)
