"""The blend stage: each mode on stored pictures and videos."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from safelight.errors import InvalidFieldValueError
from safelight.media.images import decode_image
from safelight.media.video.stream import FrameWriter, probe, read_frames
from safelight.media.video.tracks import Surroundings
from safelight.provenance.embed import read_record
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tasks.blend import BlendParams, blend
from tests.media.clips import alphas_in, write_video

BOX = Path(__file__).resolve().parents[2] / "examples" / "box.mp4"
MODES = ("crossfade", "latent", "morph")


@pytest.fixture(autouse=True)
def _on_the_cpu(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")


def kept(pixels: np.ndarray, name: str) -> ArtifactRef:
    file = settings().volume_root / "uploads" / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return ingest(str(file), ("image",))


def pixels_of(ref: ArtifactRef) -> np.ndarray:
    return decode_image(current_store().read(ref))


@pytest.fixture
def two(photo: np.ndarray) -> list[ArtifactRef]:
    return [kept(photo[:64, 160:256], "a"), kept(photo[60:124, 100:196], "b")]


def clip(tmp_path: Path, name: str, frames: int, start: int = 0, fps: int = 25) -> ArtifactRef:
    """A part of the shipped clip."""
    shown = [
        np.ascontiguousarray(frame[60:124, 160:256])
        for at, frame in zip(range(start + frames), read_frames(BOX), strict=False)
        if at >= start
    ]
    path = tmp_path / f"{name}.mp4"
    write_video(path, shown, Fraction(fps))
    return ingest(str(_uploaded(path)), ("video",))


def _uploaded(path: Path) -> Path:
    target = settings().volume_root / "uploads" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(target)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alone", [0, 1])
def test_at_weights_0_and_1_an_input_comes_back_exactly(
    two: list[ArtifactRef], mode: str, alone: int
):
    weights = (1.0, 0.0) if alone == 0 else (0.0, 1.0)
    made = blend.fn(two, BlendParams.model_validate({"mode": mode, "weights": weights}))
    assert made.sha256 == two[alone].sha256


@pytest.mark.parametrize("alone", [0, 1])
def test_a_mask_does_not_show_what_has_no_weight(two: list[ArtifactRef], alone: int):
    mask = kept(np.tile(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (64, 1, 3)), "m")
    weights = (1.0, 0.0) if alone == 0 else (0.0, 1.0)
    made = blend.fn([*two, mask], BlendParams(mode="mask", weights=weights))
    assert made.sha256 == two[alone].sha256


def test_a_crossfade_is_the_mean_by_weights(two: list[ArtifactRef]):
    made = blend.fn(two, BlendParams(weights=(3, 1)))
    first, second = (pixels_of(ref).astype(float) for ref in two)
    assert np.abs(pixels_of(made) - (0.75 * first + 0.25 * second)).max() <= 0.5
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert (record.stage, record.origin, record.engine_id) == ("blend", "edits", "numpy")
    assert record.sources == tuple(ref.sha256 for ref in two)


def test_a_mask_shows_the_second_where_it_is_white(two: list[ArtifactRef]):
    painted = np.zeros((64, 96, 3), np.uint8)
    painted[:, 48:] = 255
    made = pixels_of(blend.fn([*two, kept(painted, "m")], BlendParams(mode="mask")))
    assert np.array_equal(made[:, :48], pixels_of(two[0])[:, :48])
    assert np.array_equal(made[:, 48:], pixels_of(two[1])[:, 48:])


def test_latents_are_mixed_by_the_model(two: list[ArtifactRef], tiny_model: str):
    half = blend.fn(two, BlendParams(mode="latent", model=tiny_model))
    same = blend.fn([two[0], two[0]], BlendParams(mode="latent", model=tiny_model))
    near = blend.fn(two, BlendParams(mode="latent", model=tiny_model, weights=(1e6, 1)))
    apart = np.abs(pixels_of(near).astype(int) - pixels_of(same))
    assert apart.max() <= 1
    assert not np.array_equal(pixels_of(half), pixels_of(same))
    assert blend.identity(BlendParams(mode="latent", model=tiny_model)).engine_id == "diffusers"
    again = blend.fn(two, BlendParams(mode="latent", model=tiny_model))
    assert again.sha256 == half.sha256  # nothing is drawn at random


def test_latents_take_sides_that_the_vae_can_halve(photo: np.ndarray, tiny_model: str):
    odd = [kept(photo[:33, top : top + 47], f"odd{top}") for top in (0, 50)]
    with pytest.raises(InvalidFieldValueError, match="47x33 px, sides must be multiples of 2"):
        blend.fn(odd, BlendParams(mode="latent", model=tiny_model))


def test_the_shipped_models_latents_lie_between(photo: np.ndarray):
    dark = kept((photo[:64, 160:256] * 0.4).astype(np.uint8), "dark")
    light = kept(photo[:64, 160:256], "light")
    made = pixels_of(blend.fn([dark, light], BlendParams(mode="latent")))
    means = [float(pixels_of(ref).mean()) for ref in (dark, light)]
    assert means[0] < made.mean() < means[1]


def test_a_morph_moves_where_a_crossfade_shows_both(photo: np.ndarray):
    left = kept(np.ascontiguousarray(photo[60:156, 200:296]), "left")
    right = kept(np.ascontiguousarray(photo[60:156, 192:288]), "right")  # 8 px further
    wanted = photo[60:156, 196:292].astype(float)

    def error(mode: str) -> float:
        made = pixels_of(blend.fn([left, right], BlendParams.model_validate({"mode": mode})))
        return float(((made - wanted)[8:-8, 8:-8] ** 2).mean())

    assert error("morph") < 0.25 * error("crossfade")


def test_a_morph_of_three_goes_through_all(two: list[ArtifactRef]):
    three = [*two, two[0]]
    made = blend.fn(three, BlendParams(mode="morph", weights=(0, 0, 2)))
    assert made.sha256 == two[0].sha256
    assert blend.fn(three, BlendParams(mode="morph", weights=(0, 1, 1))).width == 96


def test_videos_are_blended_frame_by_frame(tmp_path: Path):
    first, second = clip(tmp_path, "a", 6), clip(tmp_path, "b", 4, start=10)
    made = blend.fn([first, second], BlendParams())
    path = current_store().fetch(made)
    assert (made.kind, made.frames, probe(path).fps) == ("video", 6, 25)
    shown = [list(read_frames(current_store().fetch(ref))) for ref in (first, second)]
    for at, frame in enumerate(read_frames(path)):
        other = shown[1][min(at, 3)]
        mean = (shown[0][at].astype(float) + other) / 2
        assert np.abs(frame - mean).mean() < 2.5  # what is left is the encoding
    notes = " ".join(made.metadata["notes"])
    assert "video 2 ends after 4 of 6 frames: the last is held" in notes
    assert "sound of video 2 is left out" in notes


def see_through(pixels: np.ndarray, below: int) -> np.ndarray:
    """With transparency below a row."""
    cover = np.full(pixels.shape[:2], 255, np.uint8)
    cover[below:] = 0
    return np.dstack((pixels, cover))


def transparent_clip(tmp_path: Path, photo: np.ndarray, frames: int = 3) -> ArtifactRef:
    """Of one picture, transparent in its lower half."""
    path = tmp_path / "seen_through.mkv"
    with FrameWriter(path, Fraction(25), {}, Surroundings("webm"), transparent=True) as writer:
        for _ in range(frames):
            writer.add(see_through(photo[:64, 160:256], 32))
    return ingest(str(_uploaded(path)), ("video",))


def test_transparency_of_videos_is_blended(tmp_path: Path, photo: np.ndarray):
    first, still = transparent_clip(tmp_path, photo), kept(photo[60:124, 160:256], "still")
    made = blend.fn([first, still], BlendParams(weights=(1, 3)))
    assert made.media_type == "video/webm"
    for alpha in alphas_in(current_store().fetch(made)):
        assert abs(alpha[4:28].mean() - 255) < 2
        assert abs(alpha[36:60].mean() - 191) < 2
    stickers = [first, kept(see_through(photo[60:124, 160:256], 32), "sticker")]
    made = blend.fn(stickers, BlendParams())
    for alpha in alphas_in(current_store().fetch(made)):
        assert alpha[36:60].mean() < 2


def test_what_is_laid_on_white_is_told(tmp_path: Path, photo: np.ndarray):
    sticker = kept(see_through(photo[:64, 160:256], 32), "sticker")
    still = kept(photo[60:124, 160:256], "still")
    made = blend.fn([sticker, still], BlendParams(mode="morph"))
    assert any("laid on white" in text for text in made.metadata["notes"])
    first, second = clip(tmp_path, "a", 3), transparent_clip(tmp_path, photo)
    made = blend.fn([first, second], BlendParams(weights=(1, 9)))
    (told,) = [text for text in made.metadata["notes"] if "laid on white" in text]
    assert told.startswith("a video after the first")
    lower = next(iter(read_frames(current_store().fetch(made))))[36:60]
    assert lower.mean() > 225


def test_what_is_transparent_in_a_mask_among_videos_is_black(tmp_path: Path, photo: np.ndarray):
    video, still = clip(tmp_path, "a", 3), kept(photo[:64, 160:256], "still")
    mask = kept(see_through(np.full((64, 96, 3), 255, np.uint8), 32), "mask")
    made = blend.fn([video, still, mask], BlendParams(mode="mask"))
    frames = [read_frames(current_store().fetch(ref)) for ref in (made, video)]
    for frame, before in zip(*frames, strict=True):
        assert np.abs(frame[36:].astype(int) - before[36:]).mean() < 4
        assert np.abs(frame[:28].astype(int) - photo[:28, 160:256]).mean() < 4


def test_a_picture_among_videos_stands_still(tmp_path: Path, photo: np.ndarray):
    video, still = clip(tmp_path, "a", 3), kept(photo[:64, 160:256], "still")
    painted = np.full((64, 96, 3), 255, np.uint8)
    painted[:32] = 0
    made = blend.fn([video, still, kept(painted, "m")], BlendParams(mode="mask"))
    for frame in read_frames(current_store().fetch(made)):
        assert np.abs(frame[36:].astype(int) - photo[36:64, 160:256]).mean() < 4
    alone = blend.fn([video, still], BlendParams(weights=(0, 1)))
    assert (alone.kind, alone.frames) == ("video", 3)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_a_video_that_alone_counts_comes_back_exactly(tmp_path: Path, weights):
    videos = [clip(tmp_path, "a", 3), clip(tmp_path, "b", 3, start=5)]
    made = blend.fn(videos, BlendParams(weights=weights))
    assert made.sha256 == videos[weights.index(1.0)].sha256


def test_what_does_not_fit_is_refused(tmp_path: Path, two: list[ArtifactRef], photo: np.ndarray):
    def refused(pictures: list[ArtifactRef], text: str, **params: object) -> None:
        with pytest.raises(InvalidFieldValueError, match=text):
            blend.fn(pictures, BlendParams.model_validate(params))

    small = kept(photo[:32, :32], "small")
    refused(two[:1], "1 pictures, crossfade takes 2 or more")
    refused(two, "2 pictures, mask takes 2 and a mask", mode="mask")
    refused([*two, *two], "4 pictures in mode mask, expected 2 and 1 masks", mode="mask")
    refused(two, "3 weights for 2 pictures", weights=(1, 1, 1))
    refused([two[0], small], "picture 2 is 32x32 px, the first 96x64")
    refused([two[0], clip(tmp_path, "a", 2)], "picture 2 is a video, the first is not")
    rates = [clip(tmp_path, "b", 2, fps=25), clip(tmp_path, "c", 2, fps=30)]
    refused(rates, r"video 2 has 30\.000 frames a second, the first 25\.000")


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0)])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValidationError):
        BlendParams(weights=weights)
