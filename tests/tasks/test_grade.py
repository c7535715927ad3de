"""The grade and denoise stages on stored pictures and the shipped clip."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from safelight.media.video.stream import probe, read_frames
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks import grade as module
from tasks.base.ingest import ingest
from tasks.base.keeping import load_image
from tasks.denoise import DenoiseParams, denoise
from tasks.grade import GradeParams, grade, graded_frame
from tests.media.clips import write_video

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def picture(volume: Path) -> ArtifactRef:
    return ingest(str(EXAMPLES / "astronaut.png"), ("image",))


@pytest.fixture
def clip(volume: Path) -> ArtifactRef:
    return ingest(str(EXAMPLES / "box.mp4"), ("video",))


def test_same_parameters_same_bytes(picture: ArtifactRef):
    params = GradeParams(colour="cinematic", tone=0.5, grain=0.5, seed=3)
    assert grade.fn(picture, params).sha256 == grade.fn(picture, params).sha256
    assert grade.fn(picture, params.but(seed=4)).sha256 != grade.fn(picture, params).sha256


@pytest.mark.parametrize("params", [GradeParams(), GradeParams(colour="warm", colour_strength=0)])
def test_nothing_to_do_gives_the_artifact_itself(picture: ArtifactRef, params: GradeParams):
    assert grade.fn(picture, params).sha256 == picture.sha256


def test_the_file_says_how_it_was_graded(picture: ArtifactRef):
    made = grade.fn(picture, GradeParams(grain=0.25, seed=9))
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.stage == "grade"
    assert record.parameters["grain"] == 0.25
    assert record.sources == (picture.sha256,)


@pytest.mark.slow
def test_a_video_keeps_its_frames_and_each_gets_its_own_grain(clip: ArtifactRef):
    made = grade.fn(clip, GradeParams(colour="warm", grain=0.5, seed=1))
    path = current_store().fetch(made)
    info, before = probe(path), probe(EXAMPLES / "box.mp4")
    assert (info.frames, info.fps, info.has_audio) == (before.frames, before.fps, True)
    first, second = [
        frame.astype(int) for frame, _ in zip(read_frames(path), range(2), strict=False)
    ]
    plain = [
        frame.astype(int)
        for frame, _ in zip(read_frames(EXAMPLES / "box.mp4"), range(2), strict=False)
    ]
    grain = [(a - b).ravel() for a, b in ((first, plain[0]), (second, plain[1]))]
    assert np.corrcoef(grain[0], grain[1])[0, 1] < 0.9


def test_bands_leave_no_seam(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    params = GradeParams(colour="cinematic", tone=0.5, grain=0.5, seed=3)
    whole = graded_frame(photo, params, 4, 0.1)
    monkeypatch.setattr(module, "BAND_PIXELS", 512 * 37)
    assert np.array_equal(graded_frame(photo, params, 4, 0.1), whole)


def test_tones_of_a_video_do_not_flicker(volume: Path, tmp_path: Path, photo: np.ndarray):
    part = photo[:64, 150:214]
    passing = [part.copy() for _ in range(10)]
    for at, frame in enumerate(passing):
        frame[40:, : 6 * at] = 0  # something dark moves in: the average of each frame falls
    clip = tmp_path / "clip.mp4"
    write_video(clip, passing, Fraction(25))
    video = current_store().put(clip, "video/mp4", width=64, height=64, frames=10, fps=25)
    made = grade.fn(video, GradeParams(tone=1.0))
    tops = [frame[:32].mean() for frame in read_frames(current_store().fetch(made))]
    assert max(tops) - min(tops) < 1


def test_denoise_changes_a_picture_and_level_0_does_not(picture: ArtifactRef):
    assert denoise.fn(picture, DenoiseParams(level=0)).sha256 == picture.sha256
    clean = load_image(denoise.fn(picture, DenoiseParams(level=0.3)))
    assert clean.shape == load_image(picture).shape
    assert not np.array_equal(clean, load_image(picture))


@pytest.mark.slow
def test_denoise_takes_videos(clip: ArtifactRef):
    made = denoise.fn(clip, DenoiseParams(level=0.3))
    assert (made.frames, made.width, made.height) == (clip.frames, clip.width, clip.height)


def test_grain_survives_the_encoder(volume: Path, tmp_path: Path, photo: np.ndarray):
    plain = np.ascontiguousarray(photo[:256, 128:384])
    params = GradeParams(grain=0.5, film="8mm", seed=3)
    wanted = [graded_frame(plain, params, at, 1.0) for at in range(4)]
    write_video(tmp_path / "a.mp4", wanted, Fraction(25))
    luma = np.array([0.299, 0.587, 0.114])
    for seen, drawn in zip(read_frames(tmp_path / "a.mp4"), wanted, strict=True):
        kept, grain = ((frame.astype(float) - plain) @ luma for frame in (seen, drawn))
        assert kept.std() == pytest.approx(grain.std(), rel=0.1)
        assert np.corrcoef(kept.ravel(), grain.ravel())[0, 1] > 0.7
