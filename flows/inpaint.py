"""The white part of a mask painted anew."""

from tasks.inpaint import inpaint as stage

from flows.single import stage_flow

inpaint = stage_flow(stage, image=("image",), mask=("image",))
