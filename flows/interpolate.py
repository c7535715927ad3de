"""A video at a higher frame rate."""

from flows.running.single import stage_flow
from tasks.interpolate import interpolate as stage

interpolate = stage_flow(stage, video=("video",))
