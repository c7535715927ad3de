"""Whether a picture shows what it has to."""

from flows.running.single import stage_flow
from safelight.errors import InvalidFieldValueError
from tasks.check import CheckParams
from tasks.check import check as stage


def _ahead(params: CheckParams) -> None:
    if params.policy == "next_seed":
        raise InvalidFieldValueError(
            "policy is next_seed, and nothing here draws the picture",
            "set policy to fail or warn, or let the check read a stage of a pipeline that draws",
        )


check = stage_flow(stage, ahead=_ahead, picture=("image", "video"))
