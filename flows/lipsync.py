"""The mouth in a video moves to a sound."""

from flows.running.single import stage_flow
from tasks.lipsync import lipsync as stage

lipsync = stage_flow(stage, video=("video",), audio=("audio",))
