"""Samplers by the names that users of other programs know.

What a sampler is made of comes from two sides. The model knows what it was trained for: its noise
(betas), what it predicts, whether its last step is pure noise, where its timesteps lie, and that
its latents are not to be clipped. The name knows the method: its order, its sigmas. Nothing of one
side is taken from the other: `euler` is the same method on every model, whatever the model's own
sampler is.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safelight.errors import InvalidFieldValueError

OF_THE_MODEL = frozenset(
    {
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "num_train_timesteps",
        "prediction_type",
        "rescale_betas_zero_snr",
        "timestep_spacing",
        "steps_offset",
        "clip_sample",
        "clip_sample_range",
        "set_alpha_to_one",
        "original_inference_steps",
        "timestep_scaling",
    }
)
"""Settings that belong to the model; all others belong to the sampler's name."""
OF_LATENTS: dict[str, object] = {"clip_sample": False, "set_alpha_to_one": False}
"""What holds for models of latents whose own sampler has no such setting: the configs that Stable
Diffusion 1.5 and XL were published with say so, and classes of diffusers assume the contrary."""
MOST_LCM_STEPS = 50
"""Consistency models were distilled from so many steps; there are no further ones to take."""


_ZERO_SNR = "rescale_betas_zero_snr"


@dataclass(frozen=True)
class Sampler:
    """A method."""

    kind: str
    """Class of diffusers."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """Those that belong to the name."""
    cannot: tuple[str, ...] = ()
    """Predictions of networks for which the class has another formula than the method, or none."""


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler"),
    "ddpm": Sampler("DDPMScheduler"),
    "deis": Sampler("DEISMultistepScheduler"),
    "dpm2": Sampler("KDPM2DiscreteScheduler", cannot=("sample",)),
    "dpm2_a": Sampler("KDPM2AncestralDiscreteScheduler", cannot=("sample",)),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler"),
    "dpmpp_2m_karras": Sampler("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": Sampler(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpmpp_2s": Sampler("DPMSolverSinglestepScheduler"),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_karras": Sampler("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", cannot=("sample",)),
    "heun": Sampler("HeunDiscreteScheduler"),
    "lcm": Sampler("LCMScheduler"),
    "lms": Sampler("LMSDiscreteScheduler"),
    "lms_karras": Sampler("LMSDiscreteScheduler", {"use_karras_sigmas": True}),
    # the class mixes what the network says before it makes noise of it, which is noise alone
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}, ("v_prediction", "sample")),
    "unipc": Sampler("UniPCMultistepScheduler"),
}
FLOW_SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler("FlowMatchEulerDiscreteScheduler"),
}
"""For models that predict a flow (Stable Diffusion 3, Flux), whose pipelines ask their sampler for
sigmas of their own."""
_FLOW_FAMILIES = frozenset({"sd3", "flux"})


def check_scheduler(name: str | None, steps: int = 1, family: str | None = None) -> None:
    """Refuse a sampler that is not known, or that cannot do what it is asked for.

    Args:
        name: None is the model's own.
        steps: that it is to take.
        family: of the model, where it is known.

    Raises:
        InvalidFieldValueError: with what would do.
    """
    if name is None:
        return
    known = FLOW_SAMPLERS if family in _FLOW_FAMILIES else SAMPLERS
    if name not in known:
        models = f" with models of family {family}" if name in SAMPLERS else ""
        raise InvalidFieldValueError(
            f"scheduler is {name!r}, expected one of {', '.join(known)}{models}",
            "correct scheduler, or leave it out for the model's own",
        )
    if name == "lcm" and steps > MOST_LCM_STEPS:
        raise InvalidFieldValueError(
            f"steps is {steps}, the scheduler lcm takes at most {MOST_LCM_STEPS}",
            "lower steps (4 to 8 are usual), or choose another scheduler",
        )


def scheduler_for(own: Any, name: str | None) -> Any:  # noqa: ANN401  (diffusers is untyped)
    """A sampler in its first state.

    Args:
        own: the model's own.
        name: what is asked for; None is the model's own.

    Raises:
        InvalidFieldValueError: it cannot draw with this model.
    """
    import diffusers

    if name is None:
        return type(own).from_config(own.config)
    flows = _predicts_flow(own)
    known = FLOW_SAMPLERS if flows else SAMPLERS
    if name not in known:
        raise InvalidFieldValueError(
            f"scheduler is {name!r}, which cannot draw with a model that has "
            f"{type(own).__name__}; {', '.join(known)} can",
            "correct scheduler, or leave it out for the model's own",
        )
    sampler = known[name]
    kind = getattr(diffusers, sampler.kind)
    if flows:
        return kind.from_config(own.config, **sampler.settings)
    told = named_settings(own.config)
    if told.get(_ZERO_SNR) is True and not _takes(kind, _ZERO_SNR):
        able = [n for n, s in SAMPLERS.items() if _takes(getattr(diffusers, s.kind), _ZERO_SNR)]
        raise InvalidFieldValueError(
            f"scheduler is {name!r}, which cannot begin at pure noise as this model was trained to "
            f"(rescale_betas_zero_snr); {', '.join(able)} can",
            "choose one of these, or leave scheduler out for the model's own",
        )
    predicts = told.get("prediction_type", own.config.get("prediction_type"))
    if predicts in sampler.cannot:
        able = [n for n, other in SAMPLERS.items() if predicts not in other.cannot]
        raise InvalidFieldValueError(
            f"scheduler is {name!r}, which cannot draw with a network that predicts {predicts}; "
            f"{', '.join(able)} can",
            "choose one of these, or leave scheduler out for the model's own",
        )
    return kind.from_config({**OF_LATENTS, **told, **sampler.settings})


def name_of(scheduler: Any) -> str:  # noqa: ANN401
    """What people call a sampler; the name of its class where it has no other."""
    kind, config = type(scheduler).__name__, scheduler.config
    for name, sampler in FLOW_SAMPLERS.items():
        if sampler.kind == kind:
            return name
    known = [
        name
        for name, sampler in SAMPLERS.items()
        if sampler.kind == kind
        and all(config.get(key) == value for key, value in sampler.settings.items())
    ]
    # of several that fit, the one that says most
    return max(known, key=lambda name: len(SAMPLERS[name].settings), default=kind)


def as_trained(own: Any, predicts: str | None, zero_snr: bool | None) -> Any:  # noqa: ANN401
    """The model's own sampler, told what the model's config leaves out.

    Args:
        own: as the config has it.
        predicts: what the network predicts; None leaves it.
        zero_snr: whether it was trained to begin at pure noise; None leaves it. Timesteps then have
            to begin there as well (Lin et al. 2024, arXiv:2305.08891).
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    changes: dict[str, object] = {}
    if predicts is not None:
        changes["prediction_type"] = predicts
    if zero_snr is not None:
        changes[_ZERO_SNR] = zero_snr
    if zero_snr:
        changes["timestep_spacing"] = "trailing"
    if not changes or _predicts_flow(own):
        return own
    if zero_snr and not _takes(type(own), _ZERO_SNR):
        told = named_settings(own.config)
        return DDIMScheduler.from_config({**OF_LATENTS, **told, **changes})
    return type(own).from_config(own.config, **changes)


def named_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model that its config names; classes fill in others by themselves."""
    assumed = config.get("_use_default_values", ())
    return {
        name: value
        for name, value in config.items()
        if name in OF_THE_MODEL and name not in assumed
    }


def _predicts_flow(own: Any) -> bool:  # noqa: ANN401
    return "FlowMatch" in type(own).__name__


def _takes(kind: Any, setting: str) -> bool:  # noqa: ANN401
    return setting in inspect.signature(kind.__init__).parameters
