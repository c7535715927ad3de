"""Sound laid under a video."""

from flows.running.single import stage_flow
from tasks.dub import dub as stage

dub = stage_flow(stage, video=("video",), audio=("audio",))
