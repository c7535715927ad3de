"""Animated pictures go through stages with all of their frames, or a note says what was left."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.media.animation import frames_of, timing_of
from safelight.media.video.stream import probe, read_frames
from safelight.progress import watching
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import find_stored, keep_media, upload_local
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tasks.denoise import DenoiseParams, denoise
from tasks.enhance import EnhanceParams, enhance
from tasks.grade import GradeParams, grade
from tasks.interpolate import InterpolateParams, interpolate
from tasks.upscale import UpscaleParams, upscale
from tests.media.clips import alphas_in

LASTS = (40, 80, 120)
SIZE = (24, 20)


def moving(alpha: bool) -> list[Image.Image]:
    frames = []
    for at in range(len(LASTS)):
        frame = np.full((*SIZE, 4), (40, 90, 160, 255), np.uint8)
        frame[6:14, 2 + 4 * at : 8 + 4 * at, :3] = (220, 40, 30)
        if alpha:
            frame[18:, : 4 + 4 * at, 3] = 0
        frames.append(Image.fromarray(frame))
    return frames


@pytest.fixture
def brought(volume: Path, tmp_path: Path) -> Callable[..., ArtifactRef]:
    def bring(kind: str, kinds: tuple[str, ...] = ("image",), alpha: bool = True) -> ArtifactRef:
        path = tmp_path / f"loop.{kind.lower()}"
        first, *others = moving(alpha)
        options = {"WEBP": {"lossless": True}, "GIF": {"disposal": 2}}.get(kind, {})
        first.save(
            path, kind, save_all=True, append_images=others, duration=list(LASTS), loop=2, **options
        )
        return keep_media(path, kinds)

    return bring


def assert_plays_as_before(made: ArtifactRef, source: ArtifactRef, factor: int) -> None:
    data = current_store().read(made)
    timing, before = timing_of(data), timing_of(current_store().read(source))
    assert timing.lasts == tuple(Fraction(each, 1000) for each in LASTS)
    assert timing.plays == before.plays
    assert (made.frames, made.fps) == (len(LASTS), 12.5)
    assert (made.width, made.height) == (SIZE[1] * factor, SIZE[0] * factor)
    for frame, drawn in zip(frames_of(data), moving(alpha=True), strict=True):
        expected = drawn.resize(frame.shape[1::-1], Image.Resampling.BICUBIC)
        seen = np.asarray(expected)[..., 3] == 255
        off = np.abs(frame[seen, :3].astype(int) - np.asarray(expected)[seen, :3])
        assert off.mean() < 12
        assert np.abs(frame[..., 3].astype(int) - np.asarray(expected)[..., 3]).mean() < 2
    assert not any("frames" in str(text) for text in made.metadata.get("notes", []))


@pytest.mark.parametrize(
    ("kind", "media_type"), [("WEBP", "image/webp"), ("PNG", "image/png"), ("GIF", "image/png")]
)
def test_enhance_keeps_all_frames_and_the_format(brought, kind, media_type):
    source = brought(kind)
    made = enhance.fn(source, EnhanceParams(quality_preset="low"))
    assert made.media_type == media_type
    assert_plays_as_before(made, source, 2)
    told = [str(text) for text in made.metadata.get("notes", [])]
    assert any("an animated PNG" in text for text in told) == (kind == "GIF")
    assert read_record(current_store().fetch(made)).stage == "enhance"


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_upscale_grade_and_denoise_keep_all_frames(brought, kind):
    source = brought(kind)
    assert_plays_as_before(upscale.fn(source, UpscaleParams(model="video")), source, 2)
    assert_plays_as_before(denoise.fn(source, DenoiseParams(level=0.3)), source, 1)
    graded = grade.fn(source, GradeParams(tone=0.2))
    assert_plays_as_before(graded, source, 1)
    assert graded.media_type == "image/png"


def test_results_are_found_again_with_their_frames(brought):
    made = denoise.fn(brought("WEBP"), DenoiseParams(level=0.3))
    again = find_stored(made.uri, ("image",))
    assert (again.frames, again.fps) == (made.frames, made.fps)
    assert np.array_equal(load_image(again), load_image(made))


def test_a_stage_of_one_picture_says_what_it_left(brought):
    with watching(None) as notes:
        load_image(brought("GIF"))
    assert any("all but the first of 3 frames" in text for text in notes)


def test_a_stage_of_videos_takes_an_animation_for_one(brought):
    video = brought("GIF", ("video",))
    assert (video.media_type, video.frames) == ("video/x-matroska", len(LASTS))
    made = interpolate.fn(video, InterpolateParams(target_fps=25))
    path = current_store().fetch(made)
    assert probe(path).duration_seconds == Fraction(sum(LASTS), 1000)
    assert (made.media_type, made.frames) == ("video/webm", 6)
    alphas = alphas_in(path)
    assert len(alphas) == 6
    assert np.abs(alphas[0] - np.asarray(moving(alpha=True)[0].getchannel("A"))).mean() < 3
    first = next(read_frames(path)).astype(int)
    white = moving(alpha=True)[0]
    laid = Image.new("RGB", white.size, "white")
    laid.paste(white, mask=white.getchannel("A"))
    assert np.abs(first - np.asarray(laid)).mean() < 6
    told = " ".join(str(text) for text in made.metadata["notes"])
    assert "kept, so the result is VP9" in told
    assert "laid on white" not in told
    assert "how often it plays (" in told


def test_a_stored_animation_becomes_a_video_where_one_is_asked_for(brought):
    picture = brought("GIF", alpha=False)
    video = find_stored(picture.uri, ("video",))
    assert video.kind == "video"
    frames = read_frames(current_store().fetch(video))
    before = frames_of(current_store().read(picture))
    assert [*map(np.array_equal, frames, before)] == [True] * len(LASTS)


def test_what_is_uploaded_for_a_video_stays_what_it_was(brought, tmp_path):
    brought("GIF", alpha=False)
    uri = upload_local(tmp_path / "loop.gif", ("video",))
    assert uri.endswith(".gif")
    video = find_stored(uri, ("video",))
    assert (video.kind, video.metadata) == (
        "video",
        {"left_aside": ["how often it plays (3 times)"]},
    )


def test_a_still_is_no_video(volume, tmp_path):
    path = tmp_path / "still.gif"
    buffer = io.BytesIO()
    moving(alpha=False)[0].convert("RGB").save(buffer, "GIF")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(Exception, match="holds image, expected video"):
        keep_media(path, ("video",))
