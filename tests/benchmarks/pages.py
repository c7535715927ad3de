"""Pictures for the pages of stages and presets: `python -m tests.benchmarks.pages [NAME ...]`.

Each shows what the stage or preset of its page makes of photographs that come with scikit-image
(public domain or CC0) and of the shipped clip, in a volume of its own.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from flows.image_to_video_v1 import image_to_video_v1
from flows.running.checking import RecordedFlow
from flows.running.recorded import run_inline
from flows.storyboard_builder_v1 import storyboard_builder_v1
from flows.upscale_deflicker_video_v1 import upscale_deflicker_video_v1
from safelight.media.sheets import PAPER, contact_sheet
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.animate import AnimateParams, animate
from tasks.base.ingest import ingest
from tasks.base.keeping import load_image
from tasks.blend import BlendParams, blend
from tasks.deflicker import DeflickerParams, deflicker
from tasks.storyboard import StoryboardParams, storyboard
from tests.media.clips import write_video

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / "docs" / "images"
FRAMES, FLICKER = 72, 0.2


def main(names: list[str]) -> None:
    """Draw the pictures with these names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        settings.cache_clear()
        current_store.cache_clear()
        for name in names or PAGES:
            sheet = PAGES[name]()
            Image.fromarray(sheet).save(IMAGES / f"{name}.webp", quality=88, method=6)
            sys.stdout.write(f"{name}: {sheet.shape[1]}x{sheet.shape[0]}\n")


def _blend() -> Pixels:
    person = data.astronaut()[0:256, 96:352]
    cat = data.chelsea()[20:276, 110:366]
    turned = Image.fromarray(data.astronaut()).rotate(
        -12, Image.Resampling.BICUBIC, center=(224, 128)
    )
    tilted = np.asarray(turned)[0:256, 116:372]
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    cells: list[tuple[str, Pixels]] = []
    for first, second in ((person, cat), (person, tilted)):
        pair = [_stored(first), _stored(second)]
        cells += [("first", first), ("second", second)]
        for mode in ("crossfade", "mask", "latent", "morph"):
            shown = [*pair, _stored(ramp)] if mode == "mask" else pair
            made = blend.fn(shown, BlendParams.model_validate({"mode": mode}))
            cells.append((mode, load_image(made)))
    return contact_sheet(cells, 6, 192)


def _deflicker() -> Pixels:
    before = _flickering()
    after = deflicker.fn(before, DeflickerParams())
    cells: list[tuple[str, Pixels]] = []
    slits: list[Pixels] = []
    for text, ref in (("before", before), ("after", after)):
        shown = list(read_frames(current_store().fetch(ref)))
        cells += [(f"{text}, frame {at}", shown[at]) for at in range(8, 48, 8)]
        # one column of each frame, side by side: what stands still is a line, flicker is stripes
        slits.append(np.stack([frame[:, 150] for frame in shown], axis=1).repeat(12, axis=1))
    thumbnails = contact_sheet(cells, 5, 192)
    bands = [np.asarray(Image.fromarray(slit).resize((thumbnails.shape[1], 96))) for slit in slits]
    gap = np.full((6, thumbnails.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([thumbnails, bands[0], gap, bands[1]])


def _storyboard() -> Pixels:
    shots = {
        "1. She looks up. «Is that the signal?»": data.astronaut()[0:288, 0:512],
        "2. 猫が窓から見ている 🐈": data.chelsea()[0:254, 0:451],
        "3. القهوة ساخنة، وهو ينتظر (10 دقائق)": data.coffee()[60:340, 60:560],
        "4. הטיל ממריא 🚀 בשעה 06:00": data.rocket()[60:400, 20:620],
        "5. Солнце садится за луга.": data.grass()[0:288, 0:512, None].repeat(3, axis=2),
        "6. And beyond the last meadow the stars go on, further than anybody can see tonight.": (
            data.hubble_deep_field()[300:588, 200:712]
        ),
    }
    pictures = [_stored(np.ascontiguousarray(pixels)) for pixels in shots.values()]
    params = StoryboardParams(captions=tuple(shots), columns=3, cell=320)
    return load_image(storyboard.fn(pictures, params))


def _storyboard_builder() -> Pixels:
    (made,) = _run(
        storyboard_builder_v1,
        prompt_template="a red heart, shot {shot_number}",
        shot_count=4,
        quality="low",
        seed=7,
        overrides={"generate": {"width": 64, "height": 64}, "storyboard": {"cell": 96}},
    )
    return load_image(made).repeat(3, axis=0).repeat(3, axis=1)


def _upscale_deflicker() -> Pixels:
    source = _flickering(6, size=96)
    cells: list[tuple[str, Pixels]] = []
    for quality in ("source", "low", "standard", "pro"):
        (made,) = (
            (source,)
            if quality == "source"
            else _run(upscale_deflicker_video_v1, video=source.uri, quality=quality)
        )
        shown = list(read_frames(current_store().fetch(made)))
        for at in range(3):
            frame = shown[at * len(shown) // 6]
            large = Image.fromarray(frame).resize((384, 384), Image.Resampling.NEAREST)
            cells.append(
                (f"{quality}, {len(shown)} frames, {frame.shape[1]} px", np.asarray(large))
            )
    return contact_sheet(cells, 3, 384)


def _animate() -> Pixels:
    picture = _stored(data.astronaut()[0:288, 0:512])
    cells: list[tuple[str, Pixels]] = []
    for camera in ("zoom_in", "pan_right", "parallax"):
        params = AnimateParams.model_validate({"duration": 2.0, "motion": 1.0, "camera": camera})
        cells += _moments(animate.fn(picture, params), camera)
    return contact_sheet(cells, 3, 256)


def _image_to_video() -> Pixels:
    picture = _stored(data.chelsea()[0:288, 0:451])
    cells: list[tuple[str, Pixels]] = []
    for quality in ("low", "standard"):
        (made,) = _run(image_to_video_v1, image=picture.uri, quality=quality, seed=7)
        cells += _moments(made, quality)
    return contact_sheet(cells, 3, 256)


def _moments(video: ArtifactRef, text: str) -> list[tuple[str, Pixels]]:
    """Its first frame, the one in the middle and the last."""
    shown = list(read_frames(current_store().fetch(video)))
    seconds = len(shown) / (video.fps or 1)
    picked = (0, len(shown) // 2, len(shown) - 1)
    return [(f"{text}, {at / len(shown) * seconds:.1f} s", shown[at]) for at in picked]


PAGES: dict[str, Callable[[], Pixels]] = {
    "blend": _blend,
    "animate": _animate,
    "deflicker": _deflicker,
    "image_to_video_v1": _image_to_video,
    "storyboard": _storyboard,
    "storyboard_builder_v1": _storyboard_builder,
    "upscale_deflicker_video_v1": _upscale_deflicker,
}


def _flickering(frames: int = FRAMES, size: int = 0) -> ArtifactRef:
    """A slow pan over a photograph whose light is off by up to a fifth in each frame."""
    ground = data.astronaut()[0:216, :] if not size else data.astronaut()[50 : 50 + size, 170:]
    wide = size or 320
    drawn = np.random.default_rng(5)

    def shown() -> Iterable[Pixels]:
        for at in range(frames):
            frame = ground[:, 2 * at : 2 * at + wide] * np.float32(0.8)
            gain = 1 + drawn.uniform(-FLICKER, FLICKER)
            yield np.clip(np.rint(frame * gain), 0, 255).astype(np.uint8)

    path = settings().volume_root / "uploads" / f"flicker{frames}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, shown(), Fraction(24))
    return ingest(str(path), ("video",))


def _run(flow: RecordedFlow[...], **parameters: Any) -> tuple[ArtifactRef, ...]:
    manifest = run_inline(flow, parameters, f"page-{flow.name}", lambda *_: None)
    if manifest.error is not None:
        raise SystemExit(f"{flow.name}: {manifest.error}")
    return manifest.results


def _stored(pixels: Pixels) -> ArtifactRef:
    path = settings().volume_root / "uploads" / "picture.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return ingest(str(path), ("image",))


if __name__ == "__main__":
    main(sys.argv[1:])
