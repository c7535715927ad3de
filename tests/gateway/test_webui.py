"""What programs for AUTOMATIC1111's web UI send: read as they mean it, or refused by its name."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.errors import PipelineError
from safelight.gateway.webui import (
    Drawing,
    Enlarging,
    Redrawing,
    enlargement,
    image_to_image,
    sampler_of,
    text_to_image,
)
from safelight.media.images import decode_image
from tests.gateway.conftest import Alone


def encoded(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def stored(volume: Path, link: object) -> np.ndarray:
    return decode_image((volume / str(link).removeprefix("store:")).read_bytes())


PICTURE = encoded(np.full((8, 16, 3), (200, 30, 60), np.uint8))


def test_a_whole_request_of_such_a_program_is_the_job_it_means():
    """All that the client `webuiapi` 0.9.17 sends for `txt2img(prompt="a cat")`."""
    sent = {
        **{"enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0},
        **{"hr_resize_x": 0, "hr_resize_y": 0, "hr_checkpoint_name": None, "hr_prompt": ""},
        **{"hr_sampler_name": None, "hr_scheduler": None, "hr_negative_prompt": ""},
        **{"denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0},
        **{"prompt": "a cat", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0},
        **{"seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 2},
        **{"steps": 20, "cfg_scale": 7.0, "width": 512, "height": 512, "restore_faces": False},
        **{"tiling": False, "do_not_save_samples": False, "do_not_save_grid": False},
        **{"negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0},
        **{"s_noise": 1, "override_settings": {}, "override_settings_restore_afterwards": True},
        **{"sampler_name": "Euler a", "scheduler": "automatic", "sampler_index": "Euler a"},
        **{"script_name": None, "script_args": [], "send_images": True, "save_images": False},
        "alwayson_scripts": {},
    }
    assert text_to_image(Drawing.model_validate(sent)) == {
        "prompt": "a cat",
        "negative_prompt": "",
        "seed": -1,
        "steps": 20,
        "guidance_scale": 7.0,
        "num_images": 2,
        "scheduler": "euler_a",
        "width": 512,
        "height": 512,
    }


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours"),
    [
        ("Euler", "", "euler"),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 3M SDE", "automatic", "dpmpp_3m_sde_exponential"),
        ("UniPC", "SGM Uniform", "unipc_sgm_uniform"),
    ],
)
def test_samplers_and_schedules_are_those_that_are_meant(sampler: str, schedule: str, ours: str):
    assert sampler_of(sampler, schedule) == ours


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"enable_hr": True}, "enable_hr is 'True', which nothing here does"),
        ({"tiling": True}, "tiling is 'True'"),
        ({"styles": ["film"]}, "styles is"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, "alwayson_scripts is"),
        ({"subseed_strength": 0.3}, "subseed_strength is '0.3'"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": "x"}},
            "CLIP_stop_at_last_layers is 'x'",
        ),
        ({"something_new": 1}, "something_new is '1'"),
        ({"sampler_name": "Restart"}, "sampler_name is 'Restart', which there is not"),
        ({"sampler_name": "Euler", "scheduler": "kl_optimal"}, "scheduler is 'kl_optimal'"),
        ({"scheduler": "Karras"}, "scheduler without sampler_name is 'Karras'"),
    ],
)
def test_what_would_change_the_picture_is_never_left_out_in_silence(changed: dict, said: str):
    with pytest.raises(PipelineError, match=said):
        text_to_image(Drawing.model_validate({"prompt": "a cat", **changed}))


def test_pictures_are_scaled_and_masks_turned(volume: Path):
    asked = {"init_images": [PICTURE], "width": 64, "height": 64, "denoising_strength": 0.4}
    flow, parameters = image_to_image(Redrawing.model_validate(asked))
    assert (flow, parameters["strength"]) == ("transform", 0.4)
    assert (stored(volume, parameters["image"]) == (200, 30, 60)).all()
    assert stored(volume, parameters["image"]).shape == (64, 64, 3)
    mask = np.zeros((8, 16, 3), np.uint8)
    mask[:, :8] = 255
    masked = {**asked, "mask": encoded(mask), "inpainting_mask_invert": 1, "mask_blur": 0}
    flow, parameters = image_to_image(Redrawing.model_validate(masked))
    assert flow == "inpaint"
    turned = stored(volume, parameters["mask"])
    assert turned[:, :16].max() == 0
    assert turned[:, 48:].min() == 255


def test_what_is_transparent_in_a_mask_was_not_painted(volume: Path):
    layer = np.full((64, 64, 4), 255, np.uint8)
    layer[:, 32:, 3] = 0
    asked = {"init_images": [PICTURE], "width": 64, "height": 64, "mask": encoded(layer)}
    _, parameters = image_to_image(Redrawing.model_validate(asked))
    painted = stored(volume, parameters["mask"])
    assert painted[:, :32].min() == 255
    assert painted[:, 32:].max() == 0


@pytest.mark.usefixtures("volume")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"init_images": []}, "init_images has 0 pictures, expected 1"),
        ({"init_images": ["!"]}, "init_images is '!', expected the bytes of a picture in base64"),
        ({"init_images": ["AAAA"]}, "INVALID_FIELD_VALUE"),
        ({"mask": PICTURE, "inpaint_full_res": True}, "inpaint_full_res is 'True'"),
        ({"width": 100000}, "the size is 100000x512"),
    ],
)
def test_wrong_pictures_are_refused(changed: dict, said: str):
    asked = {"init_images": [PICTURE], **changed}
    with pytest.raises(PipelineError, match=said):
        image_to_image(Redrawing.model_validate(asked))


@pytest.mark.usefixtures("volume")
def test_enlarging_takes_two_and_four():
    assert enlargement(Enlarging(image=PICTURE, upscaling_resize=4))["quality_preset"] == "high"
    with pytest.raises(PipelineError, match="upscaling_resize is 3, expected 2 or 4"):
        enlargement(Enlarging(image=PICTURE, upscaling_resize=3))
    with pytest.raises(PipelineError, match="upscaler_1 is 'SwinIR'"):
        enlargement(Enlarging.model_validate({"image": PICTURE, "upscaler_1": "SwinIR"}))


def test_samplers_and_schedules_are_listed(alone: Alone):
    samplers = {each["name"]: each for each in alone.ask("GET", "/sdapi/v1/samplers").json()}
    assert samplers["Euler a"]["aliases"] == ["euler_a", "euler_ancestral"]
    schedules = [each["label"] for each in alone.ask("GET", "/sdapi/v1/schedulers").json()]
    assert schedules[:2] == ["Automatic", "Karras"]
    for name, each in samplers.items():
        for schedule in schedules:
            if "a" not in each["aliases"]:
                assert sampler_of(name, schedule)


def test_a_picture_without_a_text_says_nothing(alone: Alone):
    said = alone.ask("POST", "/sdapi/v1/png-info", json={"image": PICTURE})
    assert said.json() == {"info": "", "items": {}, "parameters": {}}
