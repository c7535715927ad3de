"""Whether a picture shows what it has to."""

from flows.running.single import stage_flow
from tasks.check import check as stage

check = stage_flow(stage, picture=("image",))
