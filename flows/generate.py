"""Text to image."""

from tasks.generate import generate as stage

from flows.single import stage_flow

generate = stage_flow(stage)
