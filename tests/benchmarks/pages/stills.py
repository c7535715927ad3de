"""Pages of what makes, changes and joins pictures."""

import os
from collections.abc import Callable

import numpy as np
from PIL import Image
from skimage import data

from flows.storyboard_builder_v1 import storyboard_builder_v1
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from safelight.media.sheets import contact_sheet
from safelight.pixels import Pixels
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import load_image
from tasks.blend import BlendParams, blend
from tasks.comfy import ComfyParams, comfy
from tasks.denoise import DenoiseParams, denoise
from tasks.enhance import EnhanceParams, enhance
from tasks.generate import GenerateParams, generate
from tasks.grade import GradeParams, grade
from tasks.inpaint import InpaintParams, inpaint
from tasks.refine import RefineParams, refine
from tasks.storyboard import StoryboardParams, storyboard
from tasks.transform import TransformParams, transform
from tests.benchmarks.pages.materials import Cells, larger, ran, stored
from tests.engines.comfy.comfy_server import RECORDED, Comfy, comfy_up
from tests.tasks.test_comfy import keep

SMALL = {"guidance_scale": 2.0, "steps": 12, "seed": 7}
"""What the model of the checkout is made for."""
NOISE = 15.0


def _drawn(prompt: str) -> ArtifactRef:
    params = {"prompt": prompt, "width": 64, "height": 64, **SMALL}
    return generate.fn(GenerateParams.model_validate(params))[0]


def _transform() -> Pixels:
    source = _drawn("an apple")
    cells: Cells = [("an apple", larger(load_image(source), 2))]
    for strength in (0.3, 0.5, 0.7, 0.9):
        params = TransformParams.model_validate(
            {"prompt": "a lemon", "strength": strength, **SMALL, "steps": 24}
        )
        made = transform.fn(source, params)[0]
        cells.append((f"a lemon, {strength}", larger(load_image(made), 2)))
    return contact_sheet(cells, 5, 128, lines=1)


def _inpaint() -> Pixels:
    source = _drawn("a red heart")
    hole = np.zeros((64, 64, 3), np.uint8)
    hole[:, 32:] = 255
    mask = stored(hole)
    before = load_image(source)
    cells: Cells = [("a red heart", larger(before, 2)), ("mask", larger(hole, 2))]
    for prompt in ("a blue heart", "an orange"):
        params = InpaintParams.model_validate({"prompt": prompt, **SMALL})
        made = load_image(inpaint.fn(source, mask, params)[0])
        cells.append((prompt, larger(made, 2)))
        changed = np.abs(made.astype(int) - before).max(axis=2, keepdims=True) > 0
        white = np.where(changed, 255, 0).astype(np.uint8).repeat(3, axis=2)
        cells.append(("what changed", larger(white, 2)))
    return contact_sheet(cells, 6, 128, lines=1)


def _refine() -> Pixels:
    source = _drawn("a cat")
    cells: Cells = [("64 px", larger(load_image(source), 2))]
    for level in (0.3, 0.5, 0.8):
        params = RefineParams.model_validate(
            {"prompt": "a cat", "refinement_level": level, **SMALL, "steps": 24}
        )
        cells.append((f"level {level}", larger(load_image(refine.fn(source, params)), 2)))
    for level in (0.0, 0.2):
        params = RefineParams.model_validate(
            {"scale": 2, "refinement_level": level, **SMALL, "steps": 24}
        )
        cells.append((f"128 px, {level:g}", load_image(refine.fn(source, params))))
    return contact_sheet(cells, 6, 128, lines=1)


def _enhance() -> Pixels:
    photograph = np.ascontiguousarray(data.chelsea()[90:138, 120:168])
    source = stored(photograph)
    cells: Cells = [("48 px", larger(photograph, 4))]
    for quality in ("low", "medium", "high"):
        made = load_image(enhance.fn(source, EnhanceParams(quality_preset=quality)))
        cells.append((f"{quality}, {made.shape[1]} px", larger(made, 192 // made.shape[1])))
    return contact_sheet(cells, 4, 192, lines=1)


def _comfy() -> Pixels:
    """By the server of the tests, which speaks ComfyUI's protocol and sends colours of the seed."""
    keep("redraw", RECORDED["image_graph"])
    photograph = np.ascontiguousarray(data.chelsea()[60:188, 100:228])
    with comfy_up(Comfy()) as url:
        os.environ["SAFELIGHT_COMFY_URL"] = url
        settings.cache_clear()
        source = stored(photograph)
        cells: Cells = [("photograph", photograph)]
        for seed in (1, 2, 3):
            params = ComfyParams(workflow="redraw", inputs={"3.seed": seed})
            made = load_image(comfy.fn(source, params)[0])
            cells.append((f"seed {seed}", larger(made, 2)))
        del os.environ["SAFELIGHT_COMFY_URL"]
        settings.cache_clear()
    return contact_sheet(cells, 4, 128, lines=1)


def _noisy(photograph: Pixels) -> Pixels:
    noise = np.random.default_rng(3).normal(0, NOISE, photograph.shape)
    return np.clip(np.rint(photograph + noise), 0, 255).astype(np.uint8)


def _denoise() -> Pixels:
    photograph = data.astronaut()[30:158, 150:278]
    noisy = _noisy(photograph)
    source = stored(noisy)
    cells: Cells = [("photograph", photograph), ("with noise", noisy)]
    for level in (0.3, 0.5, 1.0):
        made = load_image(denoise.fn(source, DenoiseParams(level=level)))
        cells.append((f"level {level:g}", made))
    return contact_sheet(cells, 5, 128, lines=1)


def _grade() -> Pixels:
    photograph = np.ascontiguousarray(data.coffee()[60:316:2, 120:376:2])
    source = stored(photograph)
    looks = {
        "warm": {"colour": "warm"},
        "cool": {"colour": "cool"},
        "cinematic": {"colour": "cinematic"},
        "tone 0.8": {"tone": 0.8},
        "grain 0.6": {"grain": 0.6, "film": "16mm", "seed": 1},
    }
    cells: Cells = [("photograph", photograph)]
    for text, look in looks.items():
        cells.append((text, load_image(grade.fn(source, GradeParams.model_validate(look)))))
    return contact_sheet(cells, 6, 128, lines=1)


def _upscale_denoise() -> Pixels:
    noisy = _noisy(np.ascontiguousarray(data.astronaut()[80:128, 195:243]))
    source = stored(noisy)
    cells: Cells = [("48 px, with noise", larger(noisy, 4))]
    for quality in ("low", "standard", "pro"):
        (made,) = ran(upscale_denoise_image_v1, image=source.uri, quality=quality)
        shown = load_image(made)
        cells.append((f"{quality}, {shown.shape[1]} px", larger(shown, 192 // shown.shape[1])))
    return contact_sheet(cells, 4, 192, lines=1)


def _blend() -> Pixels:
    person = data.astronaut()[0:256, 96:352]
    cat = data.chelsea()[20:276, 110:366]
    turned = Image.fromarray(data.astronaut()).rotate(
        -12, Image.Resampling.BICUBIC, center=(224, 128)
    )
    tilted = np.asarray(turned)[0:256, 116:372]
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    cells: Cells = []
    for first, second in ((person, cat), (person, tilted)):
        pair = [stored(first), stored(second)]
        cells += [("first", first), ("second", second)]
        for mode in ("crossfade", "mask", "latent", "morph"):
            shown = [*pair, stored(ramp)] if mode == "mask" else pair
            made = blend.fn(shown, BlendParams.model_validate({"mode": mode}))
            cells.append((mode, load_image(made)))
    return contact_sheet(cells, 6, 128, lines=1)


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
    pictures = [stored(np.ascontiguousarray(pixels)) for pixels in shots.values()]
    params = StoryboardParams(captions=tuple(shots), columns=3, cell=224)
    return load_image(storyboard.fn(pictures, params))


def _storyboard_builder() -> Pixels:
    (made,) = ran(
        storyboard_builder_v1,
        prompt_template="a red heart, shot {shot_number}",
        shot_count=4,
        quality="low",
        seed=7,
        overrides={"generate": {"width": 64, "height": 64}, "storyboard": {"cell": 96}},
    )
    return larger(load_image(made), 3)


STILLS: dict[str, Callable[[], Pixels]] = {
    "blend": _blend,
    "comfy": _comfy,
    "denoise": _denoise,
    "enhance": _enhance,
    "grade": _grade,
    "inpaint": _inpaint,
    "refine": _refine,
    "storyboard": _storyboard,
    "storyboard_builder_v1": _storyboard_builder,
    "transform": _transform,
    "upscale_denoise_image_v1": _upscale_denoise,
}
