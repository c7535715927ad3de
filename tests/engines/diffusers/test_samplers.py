"""A sampler's name means one method, whatever the model's own sampler is."""

import math
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from safelight.engines.diffusers.samplers import (
    SAMPLERS,
    as_trained,
    check_scheduler,
    name_of,
    named_settings,
    scheduler_for,
)
from safelight.errors import InvalidFieldValueError

pytestmark = pytest.mark.filterwarnings("ignore")  # the engine hears none of diffusers' either
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
PUBLISHED = {**NOISE, "clip_sample": False, "set_alpha_to_one": False}
OWN: dict[str, Callable[[], Any]] = {
    "as Stable Diffusion 1.5": lambda: diffusers.PNDMScheduler.from_config(
        {**PUBLISHED, "skip_prk_steps": True}
    ),
    "a DPM-Solver with habits of its own": lambda: (
        diffusers.DPMSolverMultistepScheduler.from_config(
            {
                **NOISE,
                "algorithm_type": "sde-dpmsolver++",
                "use_karras_sigmas": True,
                "solver_type": "heun",
                "lower_order_final": False,
            }
        )
    ),
    "DEIS": lambda: diffusers.DEISMultistepScheduler.from_config(NOISE),
    "UniPC": lambda: diffusers.UniPCMultistepScheduler.from_config(NOISE),
    "LCM": lambda: diffusers.LCMScheduler.from_config(NOISE),
}
STEPS = 8


def noise_in(sample: torch.Tensor, at: Any) -> torch.Tensor:
    """What a network might say, smooth in both."""
    return torch.tanh(0.7 * sample + float(at) / 1000)


def through(scheduler: Any, steps: int = STEPS) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    draw = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 4, 4, generator=draw) * scheduler.init_noise_sigma
    takes = "generator" in scheduler.step.__code__.co_varnames
    for at in scheduler.timesteps:
        seen = scheduler.scale_model_input(sample, at)
        extra = {"generator": draw} if takes else {}
        sample = scheduler.step(noise_in(seen, at), at, sample, **extra).prev_sample
    return sample


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_is_the_same_method_on_every_model_and_equals_diffusers_on_published_configs(
    name: str,
):
    published = OWN["as Stable Diffusion 1.5"]()
    wanted = through(scheduler_for(published, name))
    kind = getattr(diffusers, SAMPLERS[name].kind)
    direct = kind.from_config(published.config, **SAMPLERS[name].settings)
    assert torch.equal(through(direct), wanted)
    for own in OWN:
        assert torch.equal(through(scheduler_for(OWN[own](), name)), wanted), own
    assert bool(torch.isfinite(wanted).all())


def test_what_belongs_to_the_model_goes_with_it_to_every_sampler():
    own = diffusers.DDIMScheduler.from_config(
        {
            **NOISE,
            "beta_end": 0.02,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        }
    )
    for name, sampler in SAMPLERS.items():
        if "v_prediction" in sampler.cannot:
            continue  # see test_sampler_formulas
        made = scheduler_for(own, name).config
        assert made["beta_end"] == 0.02
        assert made["prediction_type"] == "v_prediction"
        assert made.get("timestep_spacing", "trailing") == "trailing"
        assert made.get("clip_sample") is not True
    assert named_settings(own.config)["prediction_type"] == "v_prediction"
    assert "clip_sample" not in named_settings(diffusers.DDIMScheduler().config)


def in_sigmas(scheduler: Any) -> tuple[list[float], list[float], torch.Tensor]:
    """Sigmas, timesteps and the first sample in the space where noise is just added."""
    scheduler.set_timesteps(STEPS)
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    draw = torch.Generator().manual_seed(5)
    first = torch.randn(1, 4, 4, 4, generator=draw) * scheduler.init_noise_sigma
    return sigmas, [float(at) for at in scheduler.timesteps], first


def clean(x: torch.Tensor, sigma: float, at: float) -> torch.Tensor:
    return x - sigma * noise_in(x / math.sqrt(sigma**2 + 1), at)


def test_euler_takes_the_steps_of_its_formula():
    own = OWN["DEIS"]()
    sigmas, times, x = in_sigmas(scheduler_for(own, "euler"))
    for sigma, following, at in zip(sigmas, sigmas[1:], times, strict=False):
        x = x + (x - clean(x, sigma, at)) / sigma * (following - sigma)
    assert torch.allclose(x, through(scheduler_for(own, "euler")), atol=1e-4)


def test_dpmpp_2m_takes_the_steps_of_its_formula():
    """Lu et al. 2022, arXiv:2211.01095, algorithm 2, with the first order for the last step."""
    own = OWN["UniPC"]()
    sigmas, times, first = in_sigmas(scheduler_for(own, "dpmpp_2m"))
    x = first * math.sqrt(sigmas[0] ** 2 + 1)
    before: torch.Tensor | None = None
    for place, at in enumerate(times):
        sigma, following = sigmas[place], sigmas[place + 1]
        found = clean(x, sigma, at)
        last = place + 1 == len(times)
        target = found
        if before is not None and not last:
            step = math.log(sigma) - math.log(following)
            ratio = (math.log(sigmas[place - 1]) - math.log(sigma)) / step
            target = (1 + 1 / (2 * ratio)) * found - 1 / (2 * ratio) * before
        x = (following / sigma) * x + (1 - following / sigma) * target
        before = found
    assert torch.allclose(x, through(scheduler_for(own, "dpmpp_2m")), atol=1e-3)


def test_karras_sigmas_are_those_of_the_paper():
    """Karras et al. 2022, arXiv:2206.00364, equation 5, with rho 7."""
    made = scheduler_for(OWN["LCM"](), "dpmpp_2m_karras")
    made.set_timesteps(STEPS)
    sigmas = made.sigmas.numpy()[:STEPS]
    high, low = sigmas[0] ** (1 / 7), sigmas[-1] ** (1 / 7)
    wanted = (high + np.arange(STEPS) / (STEPS - 1) * (low - high)) ** 7
    assert np.allclose(sigmas, wanted, rtol=1e-4)


def test_a_model_that_begins_at_pure_noise_is_drawn_so_or_refused_by_name():
    pndm = OWN["as Stable Diffusion 1.5"]()
    trained = as_trained(pndm, "v_prediction", True)
    assert trained.config["prediction_type"] == "v_prediction"
    trained.set_timesteps(4)
    assert float(trained.alphas_cumprod[-1]) == pytest.approx(0.0, abs=1e-7)
    assert int(trained.timesteps[0]) == 999
    able = {"ddim", "ddpm", "euler", "euler_a", "lcm", "dpmpp_2m", "dpmpp_2m_sde"}
    for name in able:
        assert scheduler_for(trained, name).config["rescale_betas_zero_snr"] is True
    for name in ("heun", "lms", "pndm", "dpm2"):
        with pytest.raises(InvalidFieldValueError, match=r"pure noise.*euler"):
            scheduler_for(trained, name)
    assert as_trained(pndm, None, None) is pndm


def test_models_of_flows_take_only_samplers_of_flows():
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert scheduler_for(flow, "euler").config["shift"] == 3.0
    for refused in (
        lambda: scheduler_for(flow, "ddim"),
        lambda: check_scheduler("ddim", 4, "flux"),
    ):
        with pytest.raises(InvalidFieldValueError, match="euler"):
            refused()
    check_scheduler("euler", 4, "flux")


def test_unknown_samplers_and_steps_that_lcm_does_not_have_are_refused():
    with pytest.raises(InvalidFieldValueError, match="dpmpp_2m_karras"):
        check_scheduler("dpm++")
    with pytest.raises(InvalidFieldValueError, match="at most 50"):
        check_scheduler("lcm", 51)
    check_scheduler("lcm", 50)
    check_scheduler(None, 150)


def test_the_model_s_own_sampler_has_a_name_too():
    assert name_of(OWN["as Stable Diffusion 1.5"]()) == "pndm"
    assert name_of(OWN["UniPC"]()) == "unipc"
    karras = diffusers.DPMSolverMultistepScheduler.from_config({**NOISE, "use_karras_sigmas": True})
    assert name_of(karras) == "dpmpp_2m_karras"
    assert name_of(diffusers.FlowMatchEulerDiscreteScheduler()) == "euler"
    assert name_of(diffusers.DDIMInverseScheduler()) == "DDIMInverseScheduler"
    for name in SAMPLERS:
        assert name_of(scheduler_for(OWN["DEIS"](), name)) == name
