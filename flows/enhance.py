"""A picture enlarged and cleaned up in one step."""

from flows.single import stage_flow
from tasks.enhance import enhance as stage

enhance = stage_flow(stage, image=("image",))
