"""Pages of what shows people, by models and engines of the tests where the checkout has none."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from flows.lipsync import lipsync
from flows.talking_clip_v1 import talking_clip_v1
from flows.video_identity_consistency_v1 import video_identity_consistency_v1
from safelight.media.fitting import resized
from safelight.media.sheets import contact_sheet
from safelight.pixels import Pixels
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import load_image
from tasks.detail import DetailParams, detail
from tests.benchmarks.pages.materials import Cells, filmed, frames_of, ran, stored
from tests.engines.diffusers.test_draw import make_ip_adapter
from tests.sounds import write_syllables
from tests.talking import lips

FRAMES, SHOWN = 12, (0, 2, 4, 6)
CHECKOUT = Path(__file__).resolve().parents[3]
MOUTH = """
import wave

import numpy as np
from PIL import Image, ImageDraw

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine
from safelight.engines.lips import Written
from safelight.engines.mtcnn import find_faces
from safelight.media.video.stream import FrameWriter, probe, read_frames

class Mouth(LocalEngine):
    engine_id = "toy_lips"

    def identity(self, request):
        return EngineIdentity(engine_id="toy_lips", version="mouth")

    def sync_lips(self, request, video, sound, job, folder):
        with wave.open(str(sound)) as heard:
            rate = heard.getframerate()
            samples = np.frombuffer(heard.readframes(heard.getnframes()), "<i2") / 32768
        each = round(rate / probe(video).fps)
        with FrameWriter(folder / "spoken.mp4", probe(video).fps, {}) as writer:
            for at, frame in enumerate(read_frames(video)):
                loud = np.abs(samples[at * each : (at + 1) * each]).max(initial=0.0)
                writer.add(self.spoken(frame, float(loud)))
        return Written(folder / "spoken.mp4")

    def spoken(self, frame, loud):
        (face, *_) = find_faces(frame, 0.9)
        (left, top), (right, bottom) = face.landmarks[3:5]
        middle, half = (top + bottom) / 2, loud * (right - left) * 0.45
        picture = Image.fromarray(frame)
        box = (left, middle - half, right, middle + half)
        ImageDraw.Draw(picture).ellipse(box, fill="#3a1518", outline="#a05050")
        return np.array(picture) if half > 1 else frame

ENGINE = Mouth()
"""
"""Paints a mouth that is as wide open as the sound is loud, where MTCNN sees one."""


def _clip() -> Iterable[Pixels]:
    for at in range(FRAMES):
        yield resized(np.ascontiguousarray(data.astronaut()[:256, 90 + at : 346 + at]), 160, 160)


def _talking() -> Pixels:
    return _spoken(lambda **given: ran(talking_clip_v1, quality="low", **given))


def _lipsync() -> Pixels:
    return _spoken(lambda **given: ran(lipsync, **given))


def _spoken(run: Callable[..., tuple[ArtifactRef, ...]]) -> Pixels:
    source = filmed(_clip())
    sound = settings().volume_root / "uploads" / "said.wav"
    write_syllables(sound, FRAMES / 24)
    with tempfile.TemporaryDirectory() as folder, lips(Path(folder), MOUTH):
        (made,) = run(video=source.uri, audio=str(sound))
    before, after = frames_of(source), frames_of(made)
    cells: Cells = [(f"source, frame {at}", before[at]) for at in SHOWN]
    cells += [(f"result, frame {at}", after[at]) for at in SHOWN]
    return contact_sheet(cells, 4, 128, lines=1)


def _consistency() -> Pixels:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        shutil.copytree(CHECKOUT / "weights" / "starter", models / "starter")
        make_ip_adapter(models, "starter", 0.02)
        (models / "ip_adapter" / "face").rename(models / "ip_adapter" / "default")
        os.environ["SAFELIGHT_MODELS_DIR"] = folder
        settings.cache_clear()
        source = filmed(_clip())
        photo = stored(np.ascontiguousarray(data.astronaut()[0:256, 130:386]))
        cells: Cells = [(f"source, frame {at}", frames_of(source)[at]) for at in SHOWN[:2]]
        for quality in ("low", "standard"):
            (made,) = ran(
                video_identity_consistency_v1,
                video=source.uri,
                identity_reference=[photo.uri],
                consent_given=True,
                quality=quality,
                seed=3,
                overrides={"detail": {"guidance_scale": 1.0}},
            )
            cells += [(f"{quality}, frame {at}", frames_of(made)[at]) for at in SHOWN[:2]]
        del os.environ["SAFELIGHT_MODELS_DIR"]
    return contact_sheet(cells, 6, 128, lines=1)


def _detail() -> Pixels:
    """By the model of the checkout, which was never shown a face."""
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as opened:
        photograph = resized(np.asarray(opened.convert("RGB"))[:256, 102:358], 160, 160)
    source = stored(photograph)
    cells: Cells = [("photograph", photograph)]
    made = photograph
    for strength in (0.1, 0.35):
        params = {"prompt": "a woman", "strength": strength, "guidance_scale": 1.0, "seed": 7}
        made = load_image(detail.fn(source, DetailParams.model_validate(params)))
        cells.append((f"strength {strength}", made))
    changed = (made != photograph).any(axis=2, keepdims=True)
    cells.append(("what changed", np.where(changed, 255, 0).astype(np.uint8).repeat(3, axis=2)))
    return contact_sheet(cells, 4, 160, lines=1)


PEOPLE: dict[str, Callable[[], Pixels]] = {
    "detail": _detail,
    "lipsync": _lipsync,
    "talking_clip_v1": _talking,
    "video_identity_consistency_v1": _consistency,
}
