"""What programs that speak to AUTOMATIC1111's web UI send, as parameters of our workflows.

A field that would change the picture and that nothing here does is refused by its name, unless it
has the value at which it does nothing.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.gateway.finished import keep_pixels, not_done, pixels_in, refuse_others
from safelight.media.filling import on_black
from safelight.media.fitting import resized
from safelight.media.layers import on_white
from safelight.pixels import Pixels
from safelight.provenance.parameters_text import SCHEDULES, is_sampler, model_name, our_scheduler
from safelight.provenance.remixing.webui import automatic

PLAIN = ("", "automatic", "uniform", "normal")
"""Names of schedules that are a sampler's own."""
NOTHING: Mapping[str, tuple[object, ...]] = {
    "alwayson_scripts": ({},),
    "comments": ({},),
    "disable_extra_networks": (False,),
    "do_not_save_grid": (False, True),
    "do_not_save_samples": (False, True),
    "enable_hr": (False,),
    "eta": (1, 0),
    "firstpass_image": ("",),
    "firstphase_height": (0,),
    "firstphase_width": (0,),
    "force_task_id": ("",),
    "image_cfg_scale": (1.5,),
    "include_init_images": (False,),
    "infotext": ("",),
    "initial_noise_multiplier": (1,),
    "inpaint_full_res_padding": (0, 32),
    "inpainting_fill": (0, 1),
    "latent_mask": ("",),
    "override_settings_restore_afterwards": (True, False),
    "refiner_checkpoint": ("",),
    "refiner_switch_at": (0,),
    "restore_faces": (False,),
    "s_churn": (0,),
    "s_min_uncond": (0,),
    "s_noise": (1,),
    "s_tmax": (0,),
    "s_tmin": (0,),
    "save_images": (False, True),
    "script_args": ([],),
    "script_name": ("",),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "send_images": (True,),
    "styles": ([],),
    "subseed_strength": (0,),
    "tiling": (False,),
}
"""Fields that are known and not done, with the values at which they do nothing; null is one too."""
NOTHING_ENLARGED: Mapping[str, tuple[object, ...]] = {
    "resize_mode": (0,),
    "gfpgan_visibility": (0,),
    "codeformer_visibility": (0,),
    "upscaler_1": ("None", "R-ESRGAN 4x+"),
    "upscaler_2": ("None",),
    "extras_upscaler_2_visibility": (0,),
    "upscale_first": (False,),
}
"""The same of enlarging; the network is that of `enhance`."""
FREE_ENLARGED = (
    "codeformer_weight",
    "show_extras_results",
    "upscaling_crop",
    "upscaling_resize_h",
    "upscaling_resize_w",
)
FREE = ("denoising_strength", "sampler_index", "subseed", "resize_mode")
"""Fields that count only beside others, or where others do not stand."""


def _absent(value: object) -> object:
    return "" if value is None else value


SECOND_PASS = "hr_"
"""How the fields begin that count beside `enable_hr` alone."""
Text = Annotated[str, BeforeValidator(_absent)]
"""Null is none, as there."""


class Drawing(BaseModel):
    """What both ways of drawing take; fields of the same names as there, with their defaults."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"prompt": "a red house", "seed": 7, "steps": 20}]},
    )

    prompt: Text = ""
    """What to draw; weights and LoRAs as there."""
    negative_prompt: Text = ""
    """What to avoid."""
    seed: int = -1
    """Of the first picture; -1 draws one."""
    steps: int = 50
    """Denoising steps."""
    cfg_scale: float = 7.0
    """Guidance."""
    width: int = 512
    """Pixels."""
    height: int = 512
    """Pixels."""
    batch_size: int = Field(default=1, ge=1)
    """Pictures at once."""
    n_iter: int = Field(default=1, ge=1)
    """How often so many."""
    sampler_name: Text = ""
    """As `/sdapi/v1/samplers` names it."""
    scheduler: Text = ""
    """Noise levels, as `/sdapi/v1/schedulers` names them; `automatic` are the sampler's own."""
    override_settings: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """`sd_model_checkpoint` and `sd_vae` count."""


class Redrawing(Drawing):
    """Drawing over a picture."""

    init_images: list[str] = Field(default_factory=list[str])
    """One picture in base64, scaled to width and height."""
    denoising_strength: float = 0.75
    """How much of it is drawn anew, 0 to 1."""
    mask: Text = ""
    """White where the picture is drawn anew, in base64; empty is everywhere."""
    mask_blur: int = 4
    """Pixels over which new fades into old."""
    inpainting_mask_invert: int = Field(default=0, ge=0, le=1)
    """1 draws anew what is black."""
    inpaint_full_res: bool = False
    """True works on the masked part alone, enlarged; it is not done here."""


class Enlarging(BaseModel):
    """Enlarging one picture."""

    model_config = ConfigDict(extra="allow")

    image: str
    """In base64."""
    upscaling_resize: float = 2
    """Factor: 2 or 4."""


def enlargement(wanted: Enlarging) -> dict[str, JsonValue]:
    """The parameters of `enhance`; the picture is in the store.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: another factor, or no picture.
    """
    refuse_others(wanted.model_extra or {}, NOTHING_ENLARGED, FREE_ENLARGED)
    level = {2.0: "medium", 4.0: "high"}.get(wanted.upscaling_resize)
    if level is None:
        raise InvalidFieldValueError(
            f"upscaling_resize is {wanted.upscaling_resize:g}, expected 2 or 4", "choose one"
        )
    return {
        "image": keep_pixels(on_white(pixels_in(wanted.image, "image"))),
        "quality_preset": level,
    }


def text_to_image(wanted: Drawing) -> dict[str, JsonValue]:
    """The parameters of `generate`.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: there is no such sampler.
    """
    return {**_shared(wanted), "width": wanted.width, "height": wanted.height}


def image_to_image(wanted: Redrawing) -> tuple[str, dict[str, JsonValue]]:
    """The flow, `transform` or `inpaint`, and its parameters; the pictures are in the store.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: a picture is missing or none.
    """
    parameters = _shared(wanted)
    if len(wanted.init_images) != 1:
        raise InvalidFieldValueError(
            f"init_images has {len(wanted.init_images)} pictures, expected 1", "send one picture"
        )
    source = on_white(pixels_in(wanted.init_images[0], "init_images"))
    strength = {"strength": wanted.denoising_strength}
    if not wanted.mask:
        return "transform", {**parameters, **strength, "image": _fitted(wanted, source)}
    if wanted.inpaint_full_res:
        raise not_done("inpaint_full_res", True)
    mask = on_black(pixels_in(wanted.mask, "mask"))
    mask = 255 - mask if wanted.inpainting_mask_invert else mask
    return "inpaint", {
        **parameters,
        **strength,
        "image": _fitted(wanted, source),
        "mask": _fitted(wanted, mask),
        "mask_blur": wanted.mask_blur,
    }


def _fitted(wanted: Drawing, pixels: Pixels) -> str:
    if wanted.width < 1 or wanted.height < 1 or max(wanted.width, wanted.height) > 4096:
        raise InvalidFieldValueError(
            f"the size is {wanted.width}x{wanted.height}, expected sides of 64 to 4096",
            "correct width and height",
        )
    return keep_pixels(resized(pixels, wanted.width, wanted.height))


def _shared(wanted: Drawing) -> dict[str, JsonValue]:
    others = (wanted.model_extra or {}).items()
    first = {name: value for name, value in others if not name.startswith(SECOND_PASS)}
    refuse_others(first, NOTHING, FREE)
    found: dict[str, JsonValue] = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt,
        "seed": wanted.seed,
        "steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "num_images": wanted.batch_size * wanted.n_iter,
    }
    sampler = wanted.sampler_name or (wanted.model_extra or {}).get("sampler_index")
    if sampler:
        found["scheduler"] = sampler_of(str(sampler), wanted.scheduler)
    elif wanted.scheduler.casefold() not in PLAIN:
        raise not_done("scheduler without sampler_name", wanted.scheduler)
    return found | _overridden(wanted.override_settings)


def sampler_of(sampler: str, schedule: str) -> str:
    """Our name of a sampler and a schedule.

    Raises:
        InvalidFieldValueError: there is none like it here.
    """
    shown = {ours.casefold(): theirs for ours, theirs in SCHEDULES.items()}
    shown |= {theirs.casefold(): theirs for theirs in SCHEDULES.values()}
    wanted = schedule.casefold()
    if wanted not in PLAIN and wanted not in shown:
        raise InvalidFieldValueError(
            f"scheduler is {schedule[:80]!r}, which there is not",
            "choose one of /sdapi/v1/schedulers",
        )
    ours = our_scheduler(sampler, shown.get(wanted, ""))
    if wanted == "automatic":
        ours += automatic(sampler)
    if not is_sampler(ours):
        raise InvalidFieldValueError(
            f"sampler_name is {sampler[:80]!r}, which there is not",
            "choose one of /sdapi/v1/samplers",
        )
    return ours


def _overridden(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, value in settings.items():
        if name == "sd_model_checkpoint" and isinstance(value, str):
            found["model"] = model_name(value.partition(" [")[0])
        elif name == "sd_vae" and isinstance(value, str):
            if value not in ("Automatic", "None", ""):
                found["vae"] = model_name(value)
        elif name == "CLIP_stop_at_last_layers" and isinstance(value, int):
            if value != 1:
                found["clip_skip"] = value
        else:
            raise not_done(f"override_settings.{name}", value)
    return found
