"""A picture of the person on one to three photographs."""

from flows.running.single import stage_flow
from tasks.identity import identity as stage

identity = stage_flow(stage, references=("image",))
