"""A picture enlarged and cleaned up in one step."""

from flows.running.single import stage_flow
from tasks.enhance import enhance as stage

enhance = stage_flow(stage, image=("image",))
