"""Flows of one stage, with the stage's own parameters as their form."""

from typing import Any

from flows.running.inputs import ingest_media, ingest_several
from flows.running.recorded import RecordedFlow, recorded_flow
from flows.running.signature import wear
from safelight.params import checked
from safelight.store.artifact import ArtifactRef, MediaKind
from tasks.base.stage import Stage


def stage_flow(stage: Stage[..., Any], **media: tuple[MediaKind, ...]) -> RecordedFlow[...]:
    """A flow that runs one stage.

    Args:
        stage: the stage; each of its parameters becomes one of the flow's.
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
        return stage(*refs, checked(stage.params_type, stage.name, **given))

    wear(body, stage, media)
    return recorded_flow(body)
