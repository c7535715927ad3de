"""Clips of a product as people make them: a picture that moves, a look, a sound."""

from typing import Annotated, cast

from pydantic import Field, JsonValue

from flows.color_grade_film_grain_v1 import color_grade_film_grain_v1
from flows.image_to_video_v1 import image_to_video_v1
from flows.running.checking import RecordedFlow
from flows.running.inputs import Changes, Media, Prompt, QualityLevel, Seed, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from flows.running.subflows import call_part
from flows.upscale_deflicker_video_v1 import upscale_deflicker_video_v1
from presets.ugc_clip_builder_v1 import PRESET, PartParams
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.dub import dub
from tasks.lipsync import is_connected, lipsync

NONE: Changes = {}
NO_LIPS = "lipsync: no engine that moves lips is connected; the sound lies under the clip"
Sound = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=4096,
        description="WAV, MP3, M4A, FLAC or Ogg that is heard under the clip: a file under the "
        "volume root, or the store: link of an artifact. None: the clip is silent.",
    ),
]


@recorded_flow
def ugc_clip_builder_v1(
    product_image: Media,
    prompt: Prompt,
    audio: Sound = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Make a short clip of a product picture, with a look from standard on, larger at pro."""
    knobs = knobs_of(PRESET, quality, overrides)
    speaks = knobs.lipsync is not None and audio is not None and is_connected()
    recorder().expected_stages -= (audio is None) + (knobs.lipsync is not None and not speaks)
    picture = ingest_media("product_image", product_image, ("image",))
    heard = None if audio is None else ingest_media("audio", audio, ("audio",))
    clip = _part(image_to_video_v1, "clip", knobs.clip, image=picture.uri, prompt=prompt, seed=seed)
    if knobs.lipsync is not None and heard is not None:
        if is_connected():
            clip = lipsync(clip, heard, knobs.lipsync)
        else:
            recorder().answer["left_out"] = [NO_LIPS]
    if knobs.grade is not None:
        style = knobs.grade.style
        clip = _part(
            color_grade_film_grain_v1, "grade", knobs.grade, video=clip.uri, style=style, seed=seed
        )
    if knobs.upscale is not None:
        clip = _part(upscale_deflicker_video_v1, "upscale", knobs.upscale, video=clip.uri)
    return clip if heard is None else dub(clip, heard, knobs.dub)


def _part(flow: RecordedFlow[...], name: str, knobs: PartParams, **given: JsonValue) -> ArtifactRef:
    called = {**given, "quality": knobs.quality, "overrides": cast(JsonValue, knobs.overrides)}
    (made,) = call_part(flow, name, called).results
    return made
