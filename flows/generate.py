"""Text to image."""

from flows.running.single import stage_flow
from tasks.generate import generate as stage

generate = stage_flow(stage)
