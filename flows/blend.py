"""Two or more pictures or videos as one."""

from flows.running.single import stage_flow
from tasks.blend import blend as stage

blend = stage_flow(stage, pictures=("image", "video"))
