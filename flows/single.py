"""Flows of one stage, with the stage's own parameters as their form."""

import inspect
from typing import Annotated, Any

from pydantic import Field

from flows.inputs import Media, ingest_media
from flows.running import RecordedFlow, recorded_flow
from safelight.params import checked
from safelight.store.artifact import ArtifactRef, MediaKind
from tasks.stage import Stage


def stage_flow(stage: Stage[..., Any], **media: tuple[MediaKind, ...]) -> RecordedFlow[...]:
    """A flow that runs one stage.

    Args:
        stage: the stage; each of its parameters becomes one of the flow's.
        media: name of each media parameter, in the order of the stage's references, to the kinds
            it may have.
    """
    fields = stage.params_type.model_fields

    def body(**called: Any) -> ArtifactRef | list[ArtifactRef]:  # noqa: ANN401
        refs = [ingest_media(name, called[name], kinds) for name, kinds in media.items()]
        given = {name: value for name, value in called.items() if name in fields}
        return stage(*refs, checked(stage.params_type, stage.name, **given))

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Media) for name in media
    ]
    for name, info in fields.items():
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[
                    info.annotation, *info.metadata, Field(description=info.description)
                ],
                default=inspect.Parameter.empty
                if info.is_required()
                else info.get_default(call_default_factory=True),
            )
        )
    body.__name__ = body.__qualname__ = stage.name
    body.__doc__ = inspect.getdoc(stage.fn)
    body.__module__ = f"flows.{stage.name}"
    body.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return recorded_flow(body)
