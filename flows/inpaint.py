"""The white part of a mask painted anew."""

from flows.running.single import stage_flow
from tasks.inpaint import inpaint as stage

inpaint = stage_flow(stage, image=("image",), mask=("image",))
