"""A video at a higher frame rate."""

from flows.single import stage_flow
from tasks.interpolate import interpolate as stage

interpolate = stage_flow(stage, video=("video",))
