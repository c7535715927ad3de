"""What a run is called on the server, and the tags by which it is found there."""

from collections.abc import Mapping

from prefect.client.schemas.objects import FlowRun

from safelight.characters.tags import character_tags
from safelight.client.page import describe
from safelight.errors import PipelineError
from safelight.naming import is_drawn, tagged

NOTHING: Mapping[str, object] = {}


def name_run(
    flow_run: FlowRun,
    name: str,
    error: PipelineError | None = None,
    given: Mapping[str, object] = NOTHING,
) -> None:
    """Give a run its name, unless somebody named it, and tags of its error and its character.

    Args:
        flow_run: as the server has it; changed likewise.
        name: that says what it makes.
        error: why it is refused.
        given: its parameters.
    """
    new = name if is_drawn(flow_run.name) else flow_run.name
    tags = tagged(flow_run.tags, error)
    tags += [tag for tag in character_tags(given) if tag not in tags]
    if new != flow_run.name or set(tags) != set(flow_run.tags):
        describe(flow_run.id, new, tags)
        flow_run.name, flow_run.tags = new, tags
