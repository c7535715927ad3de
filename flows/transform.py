"""Image to image."""

from tasks.transform import transform as stage

from flows.single import stage_flow

transform = stage_flow(stage, image=("image",))
