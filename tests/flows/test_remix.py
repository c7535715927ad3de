"""Pictures made again from what is written in their files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flows.generate import generate
from flows.remix import remix
from safelight.errors import InvalidFieldValueError
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("server", "volume")
TEXT = "a red heart\nSteps: 3, Sampler: Euler, CFG scale: 2, Seed: 11, Size: 64x64, Clip skip: 2"
SMALL = {"width": 64, "height": 64, "steps": 3, "guidance_scale": 2.0, "scheduler": "euler"}


@pytest.fixture
def folder(volume: Path) -> Path:
    made = settings().volume_root / "uploads"
    made.mkdir(parents=True)
    return made


def picture(path: Path, **texts: str) -> str:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return f"uploads/{path.name}"


def test_a_picture_of_another_program_is_drawn_again(folder: Path):
    made = remix(image=picture(folder / "theirs.png", parameters=TEXT))
    same = generate(prompt="a red heart", seed=11, clip_skip=2, **SMALL)
    assert made.artifacts[-1].sha256 == same.artifacts[-1].sha256
    assert made.data["remix"]["tool"] == "AUTOMATIC1111"
    assert made.data["remix"]["left"] == []
    assert made.data["remix"]["taken"]["clip_skip"] == 2


def test_our_own_picture_is_drawn_again_with_a_change(folder: Path):
    first = generate(prompt="a blue star", seed=4, **SMALL).artifacts[-1]
    kept = current_store().fetch(first)
    again = remix(image=first.uri)
    assert again.artifacts[-1].sha256 == first.sha256
    (folder / "copy.png").write_bytes(kept.read_bytes())
    other = remix(
        image="uploads/copy.png", changes={"prompt": "a green star", "seed": None}, seed=9
    )
    assert other.artifacts[-1].sha256 != first.sha256
    manifest = load_manifest(str(other.data["manifest"]))
    drawn = manifest.stages[-1].parameters
    assert (drawn["prompt"], drawn["seed"], drawn["steps"]) == ("a green star", 9, 3)
    assert list(manifest.inputs) == ["image"]


def test_a_comment_of_a_jpeg_is_read_in_either_order(folder: Path):
    for order in ("be", "le"):
        exif = Image.Exif()
        exif[0x8769] = {0x9286: b"UNICODE\0" + TEXT.encode(f"utf-16-{order}")}
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{order}.jpg", exif=exif)
        made = remix(image=f"uploads/{order}.jpg", changes={"steps": 1})
        assert made.data["remix"]["taken"]["prompt"] == "a red heart"
        assert made.data["remix"]["taken"]["seed"] == 11


@pytest.mark.parametrize(
    ("texts", "changes", "says"),
    [
        ({}, {}, "says nothing of how it was made"),
        ({"prompt": "[[[", "Title": "x"}, {}, "it holds Title, prompt"),
        ({"parameters": TEXT.replace("64x64", "63x64")}, {}, "width"),
        ({"parameters": TEXT}, {"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_drawn_is_refused(folder: Path, texts, changes, says: str):
    with pytest.raises(InvalidFieldValueError, match=says):
        remix(image=picture(folder / "theirs.png", **texts), changes=changes)


HIRES = (
    "a red heart\nSteps: 3, Sampler: Euler, CFG scale: 2, Seed: 11, Size: 64x64, "
    "Denoising strength: 0.5, Hires upscale: 2, Hires steps: 2, Hires upscaler: "
)


@pytest.mark.parametrize(
    ("upscaler", "stages"),
    [
        pytest.param("Latent", ["generate", "refine"], marks=pytest.mark.slow),
        pytest.param(*("R-ESRGAN 4x+", ["generate", "upscale", "refine"]), marks=pytest.mark.slow),
        ("4x-Wonder", ["generate", "refine"]),
    ],
)
def test_a_second_pass_is_repeated(folder: Path, upscaler: str, stages: list[str]):
    made = remix(image=picture(folder / "large.png", parameters=HIRES + upscaler))
    result = made.artifacts[-1]
    assert (result.width, result.height) == (128, 128)
    manifest = load_manifest(str(made.data["manifest"]))
    assert [entry.stage_type for entry in manifest.stages] == stages
    second = manifest.stages[-1].parameters
    assert (second["refinement_level"], second["steps"], second["seed"]) == (0.5, 4, 11)
    told = " ".join(made.data["remix"]["left"])
    assert ("not latents" in told) == (upscaler == "Latent")
    assert ("none of this name" in told) == (upscaler == "4x-Wonder")
    once = remix(image="uploads/large.png", use_hires=False)
    assert once.artifacts[-1].width == 64
