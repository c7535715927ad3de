"""The upscale stage on stored pictures and videos."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from safelight.errors import DependencyMissingError
from safelight.media.images import decode_image
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.registry import registry
from safelight.weights.used import licence_remarks
from tasks.base.stage import cache_key
from tasks.upscale import UpscaleParams, upscale
from tests.engines.spandrel_nets.tiny_upscalers import compact, save
from tests.media.clips import write_video


def stored(pixels: np.ndarray) -> ArtifactRef:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return current_store().put(
        buffer.getvalue(), "image/png", width=pixels.shape[1], height=pixels.shape[0]
    )


@pytest.fixture
def picture(volume: Path, photo: np.ndarray) -> ArtifactRef:
    return stored(photo[100:140, 200:251])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_enlarges_a_picture_and_says_how(picture: ArtifactRef, photo: np.ndarray, factor: int):
    params = UpscaleParams(upscale_factor=factor, model="video")
    larger = upscale.fn(picture, params)
    assert (larger.width, larger.height) == (51 * factor, 40 * factor)
    assert larger.media_type == "image/png"
    pixels = decode_image(current_store().read(larger))
    back = pixels.reshape(40, factor, 51, factor, 3).mean(axis=(1, 3))
    assert np.abs(back - photo[100:140, 200:251]).mean() < 6
    record = read_record(current_store().fetch(larger))
    assert record is not None
    assert record.sources == (picture.sha256,)
    assert record.parameters["upscale_factor"] == factor
    assert record.engine_id == "realesrgan"


def test_auto_takes_the_photo_network_for_a_picture(picture: ArtifactRef):
    chosen = upscale.fn(picture, UpscaleParams(model="photo"))
    assert upscale.fn(picture, UpscaleParams()).sha256 == chosen.sha256
    record = read_record(current_store().fetch(chosen))
    assert record is not None
    assert record.parameters["model"] == "photo"
    assert len(record.weights) == 2


def test_denoise_and_model_change_the_result(picture: ArtifactRef):
    results = {
        upscale.fn(picture, UpscaleParams(model=model, denoise=denoise)).sha256
        for model in ("photo", "anime", "video")
        for denoise in (0.0, 1.0)
    }
    assert len(results) == 6


def test_enlarges_a_video_frame_by_frame(volume: Path, photo: np.ndarray, tmp_path: Path):
    frames = [photo[60 + 2 * at : 124 + 2 * at, 180:276] for at in range(4)]
    clip = tmp_path / "clip.mp4"
    write_video(clip, frames, Fraction(25))
    video = current_store().put(clip, "video/mp4", width=96, height=64, frames=4, fps=25)
    larger = upscale.fn(video, UpscaleParams(upscale_factor=3))
    assert (larger.width, larger.height, larger.frames, larger.fps) == (288, 192, 4, 25)
    path = current_store().fetch(larger)
    assert probe(path).frames == 4
    for made, frame in zip(read_frames(path), frames, strict=True):
        back = made.reshape(64, 3, 96, 3, 3).mean(axis=(1, 3))
        assert np.abs(back - frame).mean() < 8
    record = read_record(path)
    assert record is not None
    assert record.parameters["model"] == "video"


def test_texture_is_on_record_and_told(picture: ArtifactRef, photo: np.ndarray):
    larger = upscale.fn(picture, UpscaleParams(model="video"))
    notes = str(larger.metadata["notes"])
    assert "texture 1, as for a photograph: " in notes
    record = read_record(current_store().fetch(larger))
    assert record is not None
    assert (record.parameters["texture"], record.parameters["seed"]) == (1.0, 0)
    bare = upscale.fn(picture, UpscaleParams(model="video", texture=0.0))
    assert larger.sha256 != bare.sha256
    pixels, network = (decode_image(current_store().read(ref)) for ref in (larger, bare))
    source = photo[100:140, 200:251].astype(float)

    def missing(made: np.ndarray) -> float:
        return float(np.abs(made.reshape(40, 2, 51, 2, 3).mean(axis=(1, 3)) - source).mean())

    assert missing(pixels) < missing(network) / 2
    keys = {
        cache_key(upscale, [picture, UpscaleParams(texture=texture, seed=seed)])
        for texture in (None, 0.0, 1.0)
        for seed in (0, 1)
    }
    assert len(keys) == 6
    drawing = stored(
        np.kron(np.eye(8, dtype=np.uint8)[..., None] * 200, np.ones((8, 8, 3))).astype(np.uint8)
    )
    plain = upscale.fn(drawing, UpscaleParams(model="video"))
    notes = str(plain.metadata["notes"])
    assert "texture 0, as for a drawing: 100.0%" in notes
    bare = upscale.fn(drawing, UpscaleParams(model="video", texture=0))
    assert plain.sha256 == bare.sha256


@pytest.fixture
def own(volume: Path) -> str:
    """The name of an upscaler of the operator's."""
    save(compact(4), volume / "models" / "ESRGAN" / "4x my net.pth", under="params_ema")
    return "4x my net"


def test_an_upscaler_of_the_operator_enlarges_a_picture(picture: ArtifactRef, own: str):
    params = UpscaleParams(upscale_factor=3, model=own, texture=0)
    larger = upscale.fn(picture, params)
    assert (larger.width, larger.height) == (153, 120)
    record = read_record(current_store().fetch(larger))
    assert record is not None
    known = registry().get_model(own, "upscaler")
    assert record.engine_id == "spandrel"
    assert record.weights == (known.sha256,)
    assert record.parameters["model"] == own
    assert licence_remarks(record.weights) == (
        "the licence of model 4x my net is not known: see that you may use what it made",
    )
    by_path = upscale.fn(picture, params.but(model="ESRGAN/4x my net.pth"))
    same = [decode_image(current_store().read(each)) for each in (larger, by_path)]
    np.testing.assert_array_equal(*same)


def test_an_upscaler_of_the_operator_enlarges_a_video(
    volume: Path, photo: np.ndarray, tmp_path: Path, own: str
):
    clip = tmp_path / "clip.mp4"
    write_video(clip, [photo[at : at + 64, 180:276] for at in range(3)], Fraction(25))
    video = current_store().put(clip, "video/mp4", width=96, height=64, frames=3, fps=25)
    larger = upscale.fn(video, UpscaleParams(model=own))
    assert (larger.width, larger.height, larger.frames) == (192, 128, 3)
    assert len(list(read_frames(current_store().fetch(larger)))) == 3


def test_an_upscaler_that_is_not_there_is_refused_with_those_that_are(
    picture: ArtifactRef, own: str
):
    with pytest.raises(DependencyMissingError, match=r"anime, video.*near it are: 4x my net"):
        upscale.fn(picture, UpscaleParams(model="4x my nets"))


def test_the_key_knows_the_weights_that_auto_takes(picture: ArtifactRef):
    keys = {
        cache_key(upscale, [picture, UpscaleParams(model=model, tile=tile)])
        for model in ("auto", "photo", "anime", "video")
        for tile in (64, 256)
    }
    assert len(keys) == 8
    chosen = upscale.identity(UpscaleParams(model="photo"))
    assert upscale.identity(UpscaleParams(), picture) == chosen
    video = picture.model_copy(update={"media_type": "video/mp4"})
    assert upscale.identity(UpscaleParams(), video) != chosen
    assert len(chosen.weights) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"upscale_factor": 1},
        {"upscale_factor": 5},
        {"tile": 56},
        {"tile": 65},
        {"denoise": 1.5},
        {"denoise": -0.1},
        {"texture": 1.1},
        {"seed": -1},
        {"model": ""},
        {"scale": 2},
    ],
)
def test_refuses_values_outside_the_limits(fields: dict[str, object]):
    with pytest.raises(ValidationError):
        UpscaleParams.model_validate(fields)


def test_defaults_are_the_contract():
    assert UpscaleParams().upscale_factor == 2
    assert UpscaleParams().denoise == 0
