"""Text to image."""

from flows.single import stage_flow
from tasks.generate import generate as stage

generate = stage_flow(stage)
