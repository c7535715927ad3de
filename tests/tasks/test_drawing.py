"""generate, transform, inpaint and refine with a tiny real model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from safelight.engines import diffusion
from safelight.engines.diffusers.engine import drawing_of
from safelight.engines.diffusers.model import model_of
from safelight.engines.interface import ControlUse, PromptRequest
from safelight.engines.machine import loaded as loading
from safelight.engines.machine.memory import with_less_memory
from safelight.errors import (
    DependencyMissingError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    OutOfMemoryError,
    UnsafePickleError,
)
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.places import models_folder
from tasks.base.ingest import ingest
from tasks.base.keeping import load_image
from tasks.base.sampling import guides_of, prompt_fields
from tasks.base.sizing import size_for
from tasks.base.stage import cache_key
from tasks.generate import GenerateParams, generate
from tasks.inpaint import InpaintParams, inpaint
from tasks.refine import RefineParams, refine
from tasks.transform import TransformParams, transform

pytestmark = pytest.mark.usefixtures("tiny_model")
CAT = GenerateParams(prompt="a photo of the red cat", seed=7, steps=3, width=64, height=64)


def drawing(**changes: object) -> diffusion.Drawing:
    return drawing_of(PromptRequest(**prompt_fields(CAT.but(**changes))))


@pytest.fixture
def picture(volume: Path, photo: np.ndarray) -> ArtifactRef:
    path = volume / "uploads" / "crop.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[60:124, 190:254]).save(path)
    return ingest(str(path), ("image",))


@pytest.fixture
def mask(volume: Path) -> ArtifactRef:
    path = volume / "uploads" / "mask.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    white = np.zeros((64, 64), np.uint8)
    white[16:48, 16:48] = 255
    Image.fromarray(white).save(path)
    return ingest(str(path), ("image",))


def test_same_seed_same_bytes_other_seed_other_picture():
    first, again, other = (generate.fn(p)[0] for p in (CAT, CAT, CAT.but(seed=8)))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256
    assert (first.width, first.height) == (64, 64)


def test_the_key_follows_the_content_of_pictures_given_by_path(volume: Path):
    control = models_folder() / "controlnet" / "c"
    control.mkdir(parents=True)
    (control / "config.json").write_text("{}")
    place = volume / "uploads" / "control.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    steered = CAT.but(use_controlnet=True, controlnet_model="c", controlnet_image=str(place))

    def key_with(level: int) -> str:
        Image.new("RGB", (64, 64), (level,) * 3).save(place)
        return cache_key(generate, [steered])

    assert key_with(255) == key_with(255)
    assert key_with(255) != key_with(0)
    assert key_with(0) != cache_key(generate, [CAT])
    before = key_with(0)
    moved = place.rename(place.with_name("moved.png"))
    assert cache_key(generate, [steered.but(controlnet_image=str(moved))]) == before
    kept = steered.but(controlnet_image=str(moved)).located(lambda _: "store:uploads/x.png")
    assert kept.controlnet_image == "store:uploads/x.png"


def test_several_controlnets_reach_the_engine_with_their_pictures_and_spans(picture: ArtifactRef):
    assert picture.uri
    further = {"model": "lines", "image": picture.uri, "weight": 0.5, "start": 0.2, "end": 0.6}
    steered = CAT.but(
        use_controlnet=True,
        controlnet_model="depth",
        controlnet_image=picture.uri,
        controlnet_end=0.8,
        further_controlnets=(further,),
    )
    assert prompt_fields(steered)["controlnets"] == (
        ControlUse("depth", 1.0, 0.0, 0.8),
        ControlUse("lines", 0.5, 0.2, 0.6),
    )
    guides = guides_of(steered, 64, 64)
    assert [control.shape for control in guides.controls] == [(64, 64, 3)] * 2
    moved = steered.located(lambda place: f"{place}?")
    assert moved.further_controlnets[0].image == f"{picture.uri}?"
    assert not steered.but(use_controlnet=True, further_controlnets=()).further_controlnets
    with pytest.raises(InvalidFieldValueError, match="start must lie before its end"):
        steered.but(further_controlnets=({**further, "end": 0.1},))
    with pytest.raises(InvalidFieldValueError, match="start must lie before the end"):
        steered.but(controlnet_start=0.9)
    with pytest.raises(InvalidFieldValueError, match="needs use_controlnet"):
        CAT.but(further_controlnets=(further,))


def test_pictures_say_nothing_of_the_paths_that_a_run_was_given():
    private = "/home/somebody/private.png"
    request = CAT.but(controlnet_image=private, ipadapter_images=(private,))
    made = generate.fn(request)[0]
    assert b"somebody" not in current_store().read(made)
    assert read_record(current_store().fetch(made)) is not None
    assert cache_key(generate, [request]) == cache_key(generate, [CAT])


def test_a_batch_is_made_of_the_single_pictures():
    batch = generate.fn(CAT.but(num_images=3))
    single = generate.fn(CAT.but(seed=9))
    assert len({ref.sha256 for ref in batch}) == 3
    assert np.array_equal(load_image(batch[2]), load_image(single[0]))
    assert batch[2].sha256 == single[0].sha256  # the file names the seed that makes it alone


def test_a_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch):
    loading.forget_loaded()
    generate.fn(CAT)
    kept = dict(loading._kept)
    generate.fn(CAT.but(seed=1))
    assert dict(loading._kept).keys() == kept.keys()
    assert all(loading._kept[key][0] is kept[key][0] for key in kept)


def test_the_file_says_how_it_was_made(tiny_model: str):
    made = generate.fn(CAT)[0]
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.parameters["prompt"] == CAT.prompt
    assert record.weights == (find_checkpoint(tiny_model).sha256,)
    with Image.open(current_store().fetch(made)) as image:
        text = image.info["parameters"]
    assert text.startswith("a photo of the red cat")
    assert "Seed: 7" in text


def test_drawing_stops_within_one_step():
    seen: list[int] = []

    def listener(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            request_stop()

    try:
        with watching(listener), pytest.raises(StopRequestedError):
            diffusion.draw(drawing(steps=10), 64, 64)
    finally:
        clear_stop()
    assert seen == [1, 2]


@pytest.mark.parametrize(
    "name",
    ["ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "heun", "lms", "lcm"],
)
def test_schedulers_by_the_names_people_know(name: str):
    assert load_image(generate.fn(CAT.but(scheduler=name))[0]).shape == (64, 64, 3)


def test_an_earlier_scheduler_leaves_no_trace():
    before = generate.fn(CAT)[0].sha256
    generate.fn(CAT.but(scheduler="euler_a"))
    assert generate.fn(CAT)[0].sha256 == before


def test_what_is_not_there_is_refused():
    with pytest.raises(InvalidFieldValueError, match=r"warp.*ddim"):
        generate.identity(CAT.but(scheduler="warp"))
    with pytest.raises(DependencyMissingError, match="'nothing'"):
        generate.identity(CAT.but(model="nothing"))
    with pytest.raises(DependencyMissingError, match="loras"):
        generate.identity(CAT.but(loras=({"name": "style"},)))
    with pytest.raises(MissingRequiredFieldError, match="seed"):
        generate.fn(CAT.but(seed=None))


@pytest.mark.parametrize(
    "name", ["../tiny", "/etc", "a/../b", "a//b", "a/.b", "tiny\0", "..", ".hidden", "", "x" * 129]
)
def test_a_model_is_a_name_and_never_a_path(name: str):
    with pytest.raises(ForbiddenPathError):
        find_checkpoint(name)
    with pytest.raises(DependencyMissingError):  # a name, of which there is none
        find_checkpoint("x" * 128)


@pytest.mark.parametrize(
    "changes",
    [
        *({"width": 513}, {"height": 0}, {"prompt": ""}, {"steps": 0}, {"seed": -2}),
        *({"num_images": 99}, {"loras": [{"name": "a", "weight": 4.01}]}),
        {"loras": [{"name": "a", "weight": -4.01}]},
        *({"controlnet_weight": 2.01}, {"controlnet_weight": -0.01}),
        *({"ipadapter_weight": 1.01}, {"ipadapter_weight": -0.01}),
    ],
)
def test_values_outside_their_limits_are_refused(changes: dict[str, object]):
    with pytest.raises(ValidationError):
        GenerateParams.model_validate({**CAT.model_dump(), **changes})


@pytest.mark.parametrize(("lora", "net", "adapter"), [(-4, 0, 0), (4, 2, 1)])
def test_weights_at_their_limits_are_taken(lora: float, net: float, adapter: float):
    weights = {"controlnet_weight": net, "ipadapter_weight": adapter}
    loras = [{"name": "a", "weight": lora}]
    made = GenerateParams.model_validate({**CAT.model_dump(), **weights, "loras": loras})
    assert (made.loras[0].weight, made.controlnet_weight, made.ipadapter_weight) == (
        *(lora, net, adapter),
    )


def test_a_pickle_renamed_safetensors_is_refused_unopened(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    import pickle

    from safelight.settings import settings

    models = volume / "models"
    models.mkdir(parents=True)
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()
    (models / "evil.safetensors").write_bytes(pickle.dumps(print))
    with pytest.raises(UnsafePickleError, match="expected safetensors"):
        find_checkpoint("evil")
    (models / "worse.ckpt").write_bytes(pickle.dumps(print))
    with pytest.raises(UnsafePickleError, match="print"):
        find_checkpoint("worse")


def test_transform_of_no_strength_is_the_picture(picture: ArtifactRef):
    params = TransformParams(prompt="a dog", seed=1, steps=4, strength=0)
    same = transform.fn(picture, params)[0]
    assert np.array_equal(load_image(same), load_image(picture))
    other = transform.fn(picture, params.but(strength=0.8))[0]
    assert not np.array_equal(load_image(other), load_image(picture))
    assert transform.fn(picture, params.but(strength=0.8))[0].sha256 == other.sha256


def test_inpaint_leaves_everything_outside_the_mask_alone(picture: ArtifactRef, mask: ArtifactRef):
    params = InpaintParams(prompt="a dog", seed=1, steps=4)
    painted = load_image(inpaint.fn(picture, mask, params)[0]).astype(int)
    before, hole = load_image(picture).astype(int), load_image(mask)[..., 0] > 127
    assert np.abs(painted - before)[~hole].max() == 0
    assert np.abs(painted - before)[20:44, 20:44].mean() > 3


def test_refine_enlarges_and_redraws(picture: ArtifactRef):
    plain = refine.fn(picture, RefineParams(refinement_level=0, scale=2))
    assert (plain.width, plain.height) == (128, 128)
    redrawn = refine.fn(picture, RefineParams(refinement_level=0.5, scale=2, seed=1, steps=4))
    assert (redrawn.width, redrawn.height) == (128, 128)
    assert not np.array_equal(load_image(plain), load_image(redrawn))
    with pytest.raises(InvalidFieldValueError, match=r"97\.92x97\.92"):
        refine.fn(picture, RefineParams(scale=1.53))


def test_refine_of_level_0_loads_no_model(picture: ArtifactRef):
    loading.forget_loaded()
    refine.fn(picture, RefineParams(refinement_level=0, scale=2))
    assert not loading._kept


def test_small_models_draw_at_their_own_size():
    size = size_for("tiny", (2, 3))
    assert (size.width, size.height) == (64, 64)
    assert size.enlargements == (2, 4)


def test_memory_that_runs_out_leads_to_smaller_batches():
    import torch

    model = model_of(find_checkpoint("tiny"))

    def too_large(module: object, inputs: object, named: dict[str, torch.Tensor]) -> None:
        if len(named.get("sample", inputs[0])) > 2:  # two rows a picture: with and without prompt
            raise torch.cuda.OutOfMemoryError("no room for more than one picture")

    hook = model.pipeline.unet.register_forward_pre_hook(too_large, with_kwargs=True)
    try:
        with watching(None) as notes:
            pictures = diffusion.draw(drawing(num_images=2), 64, 64)
    finally:
        hook.remove()
    assert len(pictures) == 2
    assert any("one picture at a time" in text for text in notes)


def test_memory_that_never_suffices_is_an_error():
    import torch

    def never() -> None:
        raise torch.cuda.OutOfMemoryError("full")

    with pytest.raises(OutOfMemoryError, match="slices"):
        with_less_memory("drawing", [("the batch", never), ("slices", never)])
