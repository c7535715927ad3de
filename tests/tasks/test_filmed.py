"""Text to video in generate: video models by the class of their folder, else a moved picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
)
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.base.keeping import load_image
from tasks.generate import GenerateParams, generate

FAST = {
    "prompt": "a red cat",
    "makes": "video",
    "duration": 2.0,
    "steps": 1,
    "seed": 3,
    "width": 64,
    "height": 64,
}
KINDS = ["ltx", "wan-text", "cogvideox-text", "hunyuan-text", "animatediff"]


def params_of(**given: object) -> GenerateParams:
    return GenerateParams.model_validate({**FAST, **given})


def made_of(params: GenerateParams) -> ArtifactRef:
    call = Call(generate.declared, [params])
    with calling(call):
        (made,) = generate.fn(params)
    return made


def frames_of(ref: ArtifactRef) -> list[np.ndarray]:
    return list(read_frames(current_store().fetch(ref)))


def averaged(image: np.ndarray) -> np.ndarray:
    """Of squares of 8x8 px."""
    return image.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_video_models_draw_a_prompt_by_the_class_that_their_folder_names(
    video_models: Callable[[str], str], kind: str
):
    video_models(kind)
    wide = 96 if kind == "cogvideox-text" else 64
    made = made_of(params_of(negative_prompt="fog", width=wide))
    info = probe(current_store().fetch(made))
    assert (info.width, info.height, info.frames, info.fps) == (wide, 64, 48, 24)
    assert made.media_type == "video/mp4"
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert (record.stage, record.engine_id, record.origin) == ("generate", "diffusers", "creates")
    assert len(record.weights) == 2  # the video model and the interpolator, and no picture's model
    notes = " ".join(made.metadata["notes"])
    assert "no video model" not in notes
    assert ("the negative prompt took no part" in notes) == (kind == "hunyuan-text")
    shown = frames_of(made)
    assert any(not np.array_equal(shown[0], frame) for frame in shown)


def test_a_seed_films_the_same_and_another_another(video_models: Callable[[str], str]):
    video_models("ltx")
    made = [made_of(params_of(seed=seed)).sha256 for seed in (3, 3, 4)]
    assert made[0] == made[1] != made[2]
    with pytest.raises(MissingRequiredFieldError, match="no seed"):
        made_of(params_of(seed=None))


def test_without_a_video_model_a_camera_moves_over_the_drawn_picture(tiny_model: str):
    params = params_of(steps=2, motion=1.0, camera="pan_right")
    call = Call(generate.declared, [params])
    with calling(call):
        (made,) = generate.fn(params)
    assert (made.frames, made.fps, made.width, made.height) == (48, 24, 64, 64)
    notes = " ".join(made.metadata["notes"])
    assert "no video model drew this: a camera moves over the picture (pan_right)" in notes
    assert [(each.engine_id, each.code) for each in call.passed_over] == [
        ("diffusers", "DEPENDENCY_MISSING")
    ]
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.engine_id == "local_motion"
    drawn = GenerateParams(prompt="a red cat", steps=2, seed=3, width=64, height=64)
    (picture,) = generate.fn(drawn)
    assert set(record.weights) >= set(read_record(current_store().fetch(picture)).weights)  # pyright: ignore
    still = frames_of(made_of(params_of(steps=2, motion=0.0)))[0]
    seen, shown = averaged(still), averaged(load_image(picture))  # videos keep half the colours
    assert np.abs(seen - shown).mean() < 6 < np.abs(seen[:, ::-1] - shown).mean()


def test_a_named_model_that_is_missing_is_no_moved_picture(tiny_model: str):
    with pytest.raises(DependencyMissingError, match="'wonder'"):
        made_of(params_of(model="wonder"))


def test_one_of_pictures_is_told_from_one_of_text(video_models: Callable[[str], str]):
    kind = video_models("svd")
    with pytest.raises(DependencyMissingError, match="draws no video from text"):
        made_of(params_of(model=f"tiny-{kind}"))


def test_sizes_that_a_model_does_not_draw_are_refused_before_it_is_loaded(
    video_models: Callable[[str], str],
):
    video_models("cogvideox-text")
    with pytest.raises(InvalidFieldValueError, match="draws 96x64 px alone"):
        made_of(params_of())
    video_models("ltx")
    with pytest.raises(InvalidFieldValueError, match="multiples of 32 px"):
        made_of(params_of(width=72))


@pytest.mark.parametrize(
    "given",
    [
        {"makes": "image"},
        {"num_images": 2},
        {"vae": "soft"},
        {"prompt": "a cat <lora:soft:1>"},
        {"scheduler": "euler"},
        {"canvas_width": 128},
        {"duration": 5.5},
        {"fps": 23},
        {"makes": "sound"},
    ],
    ids=str,
)
def test_what_is_not_for_videos_or_pictures_is_refused(given: dict[str, object]):
    with pytest.raises(ValidationError):
        params_of(**given)


def test_pictures_say_nothing_of_videos():
    """Their keys and records are those of before there were videos."""
    drawn = GenerateParams(prompt="a cat", seed=1)
    assert not {"makes", "duration", "fps", "motion", "camera"} & drawn.model_dump().keys()


def test_a_video_model_is_found_by_what_it_draws_from(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from safelight.engines.diffusers.video_families import FROM_PICTURE, FROM_TEXT
    from safelight.settings import settings
    from safelight.weights.videos import find_video_model

    for name, made_for in (("a", "StableVideoDiffusionPipeline"), ("b", "WanPipeline")):
        folder = tmp_path / "models" / "video" / name
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text(f'{{"_class_name": "{made_for}"}}')
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tmp_path / "models"))
    settings.cache_clear()
    assert find_video_model(None, FROM_PICTURE).name == "a"
    assert find_video_model(None, FROM_TEXT).name == "b"
