"""Image to image."""

from flows.running.single import stage_flow
from tasks.transform import transform as stage

transform = stage_flow(stage, image=("image",))
