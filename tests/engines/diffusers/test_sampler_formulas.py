"""Each sampler's name against the formulas of its paper, step by step, on a toy network.

The formulas work in the space of k-diffusion, where a sample is a clean picture plus sigma times
noise (Karras et al. 2022, arXiv:2206.00364); the network is shown the sample divided by
sqrt(1 + sigma^2), and when. What it is shown at every step, and the last result, are compared.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from safelight.engines.diffusers.samplers import SAMPLERS, scheduler_for
from safelight.errors import InvalidFieldValueError

pytestmark = pytest.mark.filterwarnings("ignore")  # the engine hears none of diffusers' either
STEPS, TRAINED = 8, 1000
SHAPE = (1, 4, 4, 4)
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, TRAINED) ** 2
KEPT = np.cumprod(1 - BETAS)
"""Part of the picture's energy that is left at each trained timestep."""
SIGMAS = np.sqrt((1 - KEPT) / KEPT)
WITHIN = 1e-4
Array = np.ndarray
PREDICTS = ("epsilon", "v_prediction", "sample")


def said_by(sample: Array, at: float) -> Array:
    """What the toy network says, smooth in both."""
    return np.tanh(0.7 * sample + at / TRAINED)


@dataclass
class Toy:
    """The network as the formulas use it; notes what it was shown."""

    predicts: str
    seen: list[tuple[float, Array]] = field(default_factory=list)

    def clean(self, x: Array, sigma: float, at: float) -> Array:
        """The clean picture that it believes in."""
        shown = x / math.sqrt(1 + sigma**2)
        self.seen.append((at, shown))
        said = said_by(shown, at)
        if self.predicts == "epsilon":
            return x - sigma * said
        if self.predicts == "sample":
            return said
        return shown / math.sqrt(1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * said

    def noise(self, x: Array, sigma: float, at: float) -> Array:
        """The noise that it believes in."""
        return (x - self.clean(x, sigma, at)) / sigma


class Noise:
    """The same noise as the library draws, in the same order."""

    def __init__(self) -> None:
        self._source = torch.Generator().manual_seed(5)

    def next(self) -> Array:
        return torch.randn(SHAPE, generator=self._source).numpy().astype(np.float64)


def sigma_at(time: float) -> float:
    return float(np.interp(time, np.arange(TRAINED), SIGMAS))


def time_of(sigma: float) -> float:
    """Between two trained timesteps as the logarithm of sigma lies between theirs."""
    return float(np.interp(math.log(sigma), np.log(SIGMAS), np.arange(TRAINED)))


def from_the_last_to_0() -> list[float]:
    """As k-diffusion lays out timesteps."""
    return [float(at) for at in np.linspace(TRAINED - 1, 0, STEPS)]


def without_0() -> list[float]:
    """As the first code of DPM-Solver does: one more, whose 0 is left out."""
    return [float(at) for at in np.linspace(0, TRAINED - 1, STEPS + 1).round()[:0:-1]]


def by_ratio() -> list[int]:
    """As the first code of DDIM does, one later as published configs have it."""
    return [(STEPS - 1 - place) * (TRAINED // STEPS) + 1 for place in range(STEPS)]


def karras() -> list[float]:
    """Equation 5 with rho 7, from the largest to the smallest sigma of the model."""
    high, low = SIGMAS[-1] ** (1 / 7), SIGMAS[0] ** (1 / 7)
    return [float((high + i / (STEPS - 1) * (low - high)) ** 7) for i in range(STEPS)]


def integral(of: Callable[[float], float], start: float, stop: float) -> float:
    """By Gauss's rule, exact for polynomials up to degree 39."""
    places, weights = np.polynomial.legendre.leggauss(20)
    middle, half = (start + stop) / 2, (stop - start) / 2
    return float(
        sum(w * of(middle + half * p) for p, w in zip(places, weights, strict=True)) * half
    )


def through_points(known: list[float], place: int, at: float) -> float:
    """Lagrange's polynomial that is 1 at one of the known points and 0 at the others."""
    others = (x for number, x in enumerate(known) if number != place)
    return math.prod((at - x) / (known[place] - x) for x in others)


Result = tuple[Array, float]
"""A sample, and the sigma it is at."""


def euler(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    x = noise.next() * sigmas[0]
    ends = [*sigmas[1:], 0.0]
    for sigma, end, at in zip(sigmas, ends, times, strict=True):
        x = x + toy.noise(x, sigma, at) * (end - sigma)
    return x, 0.0


def down_and_up(sigma: float, end: float) -> tuple[float, float]:
    """How far an ancestral step goes down, and how much noise takes it up again."""
    up = math.sqrt(end**2 * (sigma**2 - end**2) / sigma**2)
    return math.sqrt(end**2 - up**2), up


def euler_ancestral(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    x = noise.next() * sigmas[0]
    for sigma, end, at in zip(sigmas, [*sigmas[1:], 0.0], times, strict=True):
        down, up = down_and_up(sigma, end)
        x = x + toy.noise(x, sigma, at) * (down - sigma) + noise.next() * up
    return x, 0.0


def heun(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Algorithm 1 of Karras et al. without churn."""
    x = noise.next() * sigmas[0]
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        slope = toy.noise(x, sigma, at)
        if place + 1 == len(sigmas):
            return x - slope * sigma, 0.0
        end = sigmas[place + 1]
        there = toy.noise(x + slope * (end - sigma), end, times[place + 1])
        x = x + (slope + there) / 2 * (end - sigma)
    raise AssertionError


def dpm2(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Lu et al. 2022, arXiv:2206.00927: the slope half way in the logarithm of sigma."""
    x = noise.next() * sigmas[0]
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        slope = toy.noise(x, sigma, at)
        if place + 1 == len(sigmas):
            return x - slope * sigma, 0.0
        end = sigmas[place + 1]
        half = math.sqrt(sigma * end)
        x = x + toy.noise(x + slope * (half - sigma), half, time_of(half)) * (end - sigma)
    raise AssertionError


def dpm2_ancestral(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    x = noise.next() * sigmas[0]
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        slope = toy.noise(x, sigma, at)
        if place + 1 == len(sigmas):
            return x - slope * sigma, 0.0
        down, up = down_and_up(sigma, sigmas[place + 1])
        half = math.sqrt(sigma * down)
        there = toy.noise(x + slope * (half - sigma), half, time_of(half))
        x = x + there * (down - sigma) + noise.next() * up
    raise AssertionError


def lms(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Linear multistep of order 4: the slopes' polynomial in sigma, integrated over the step."""
    x, slopes = noise.next() * sigmas[0], []
    ends = [*sigmas[1:], 0.0]
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        slopes.append(toy.noise(x, sigma, at))
        known = sigmas[max(place - 3, 0) : place + 1]
        for number, slope in enumerate(slopes[-4:]):
            part = integral(
                lambda s, n=number, k=known: through_points(k, n, s), sigma, ends[place]
            )
            x = x + part * slope
    return x, 0.0


def started(noise: Noise, sigma: float) -> Array:
    """Pure noise of variance 1, as models that keep the energy begin."""
    return noise.next() * math.sqrt(1 + sigma**2)


def dpmpp_2m(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Lu et al. 2022, arXiv:2211.01095, algorithm 2; the last step ends without noise."""
    x, before = started(noise, sigmas[0]), None
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        found = toy.clean(x, sigma, at)
        if place + 1 == len(sigmas):
            return found, 0.0
        end, target = sigmas[place + 1], found
        if before is not None:
            ratio = math.log(sigmas[place - 1] / sigma) / math.log(sigma / end)
            target = found + (found - before) / (2 * ratio)
        x = end / sigma * x + (1 - end / sigma) * target
        before = found
    raise AssertionError


def dpmpp_2m_sde(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """The same for the stochastic equation, its noise as strong as that of the equation."""
    x, before = started(noise, sigmas[0]), None
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        found = toy.clean(x, sigma, at)
        if place + 1 == len(sigmas):
            return found, 0.0
        end, target = sigmas[place + 1], found
        if before is not None:
            ratio = math.log(sigmas[place - 1] / sigma) / math.log(sigma / end)
            target = found + (found - before) / (2 * ratio)
        kept = (end / sigma) ** 2
        x = kept * x + (1 - kept) * target + end * math.sqrt(1 - kept) * noise.next()
        before = found
    raise AssertionError


def dpmpp_2s(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Algorithm 1 of the same paper: every second moment is the inner one of a step."""
    x, place = started(noise, sigmas[0]), 0
    while place < len(sigmas):
        sigma = sigmas[place]
        found = toy.clean(x, sigma, times[place])
        if place + 1 == len(sigmas):
            return found, 0.0
        inner = sigmas[place + 1]
        between = inner / sigma * x + (1 - inner / sigma) * found
        if place + 2 == len(sigmas):
            x, place = between, place + 1
            continue
        end = sigmas[place + 2]
        ratio = math.log(sigma / inner) / math.log(sigma / end)
        there = toy.clean(between, inner, times[place + 1])
        target = found + (there - found) / (2 * ratio)
        x, place = end / sigma * x + (1 - end / sigma) * target, place + 2
    raise AssertionError


def deis(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Zhang, Chen 2022, arXiv:2204.13902: the noise's line in the logarithm of sigma."""
    x, before = started(noise, sigmas[0]), None
    ends = [*sigmas[1:], float(SIGMAS[0])]
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        found, end = toy.noise(x, sigma, at), ends[place]
        if before is None or place + 1 == len(sigmas):
            x = x + found * (end - sigma)
        else:
            known = [math.log(sigmas[place - 1]), math.log(sigma)]
            for number, slope in enumerate((before, found)):
                part = integral(
                    lambda s, n=number, k=known: through_points(k, n, math.log(s)), sigma, end
                )
                x = x + part * slope
        before = found
    return x, ends[-1]


def unipc(toy: Toy, noise: Noise, sigmas: list[float], times: list[float]) -> Result:
    """Zhao et al. 2023, arXiv:2302.04867: UniP-2 and UniC-2 with B(h) = exp(-h) - 1."""
    x = started(noise, sigmas[0])
    levels = [-math.log(sigma) for sigma in sigmas]
    found: list[Array] = []
    start, order = x, 0
    for place, (sigma, at) in enumerate(zip(sigmas, times, strict=True)):
        found.append(toy.clean(x, sigma, at))
        if place:  # correct how it came here by what the network says here
            h = levels[place] - levels[place - 1]
            b = math.expm1(-h)
            first = -b / h - 1  # phi_2 and phi_3 of the exponential integrator, of -h
            wanted = [first / b, 2 * (-first / h - 0.5) / b]
            new = found[place] - found[place - 1]
            if order == 1:
                change = 0.5 * new
            else:
                ratio = (levels[place - 2] - levels[place - 1]) / h
                weights = np.linalg.solve([[1, 1], [ratio, 1]], wanted)
                old = (found[place - 2] - found[place - 1]) / ratio
                change = weights[0] * old + weights[1] * new
            x = sigma / sigmas[place - 1] * start - b * (found[place - 1] + change)
        if place + 1 == len(sigmas):
            return found[place], 0.0
        start, order = x, min(place + 1, 2)
        h = levels[place + 1] - levels[place]
        b, change = math.expm1(-h), np.zeros(SHAPE)
        if order == 2:
            ratio = (levels[place - 1] - levels[place]) / h
            change = 0.5 * (found[place - 1] - found[place]) / ratio
        x = sigmas[place + 1] / sigma * x - b * (found[place] + change)
    raise AssertionError


def ddim(toy: Toy, noise: Noise) -> Result:
    """Song et al. 2020, arXiv:2010.02502, equation 12 without noise of its own."""
    times = by_ratio()
    x = started(noise, SIGMAS[times[0]])
    for at, following in zip(times, [*times[1:], 0], strict=True):
        sigma, end = float(SIGMAS[at]), float(SIGMAS[following])
        x = x + toy.noise(x, sigma, at) * (end - sigma)
    return x, float(SIGMAS[0])


def pndm(toy: Toy, noise: Noise) -> Result:
    """Liu et al. 2022, arXiv:2202.09778: the second step again, then four noises' mean."""
    times = by_ratio()
    ends = [float(SIGMAS[at]) for at in (*times[1:], 0)]
    first = started(noise, SIGMAS[times[0]])
    sigma = float(SIGMAS[times[0]])
    told = [toy.noise(first, sigma, times[0])]
    guess = first + told[0] * (ends[0] - sigma)
    again = toy.noise(guess, ends[0], times[1])
    x = first + (told[0] + again) / 2 * (ends[0] - sigma)
    weights = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}
    for place in range(1, STEPS):
        sigma = float(SIGMAS[times[place]])
        told.append(toy.noise(x, sigma, times[place]))
        taken = weights[min(len(told), 4)]
        mean = sum(w * e for w, e in zip(taken, reversed(told), strict=False)) / sum(taken)
        x = x + mean * (ends[place] - sigma)
    return x, float(SIGMAS[0])


def ddpm(toy: Toy, noise: Noise) -> Result:
    """Ho et al. 2020, arXiv:2006.11239, equations 6 and 7, over several timesteps at once."""
    times = by_ratio()
    shown = noise.next()
    for place, at in enumerate(times):
        kept, end = KEPT[at], KEPT[times[place + 1]] if place + 1 < STEPS else 1.0
        found = toy.clean(shown / math.sqrt(kept), float(SIGMAS[at]), at)
        part = kept / end
        mean = math.sqrt(end) * (1 - part) * found + math.sqrt(part) * (1 - end) * shown
        spread = math.sqrt((1 - end) / (1 - kept) * (1 - part))
        shown = mean / (1 - kept) + spread * noise.next()
    return shown, 0.0


def lcm(toy: Toy, noise: Noise) -> Result:
    """Luo et al. 2023, arXiv:2310.04378, algorithm 3, on the 50 timesteps of the distillation."""
    trained = [TRAINED - 1 - 20 * place for place in range(50)]
    times = [trained[place * 50 // STEPS] for place in range(STEPS)]
    shown = noise.next()
    for place, at in enumerate(times):
        found = toy.clean(shown / math.sqrt(KEPT[at]), float(SIGMAS[at]), at)
        scaled = 10.0 * at
        skip, out = 0.25 / (scaled**2 + 0.25), scaled / math.sqrt(scaled**2 + 0.25)
        found = out * found + skip * shown
        if place + 1 == STEPS:
            return found, 0.0
        end = KEPT[times[place + 1]]
        shown = math.sqrt(end) * found + math.sqrt(1 - end) * noise.next()
    raise AssertionError


OnSigmas = Callable[[Toy, Noise, list[float], list[float]], Result]


def spread_evenly(formula: OnSigmas) -> Callable[[Toy, Noise], Result]:
    times = from_the_last_to_0()
    return lambda toy, noise: formula(toy, noise, [sigma_at(at) for at in times], times)


def one_more(formula: OnSigmas) -> Callable[[Toy, Noise], Result]:
    times = without_0()
    return lambda toy, noise: formula(toy, noise, [sigma_at(at) for at in times], times)


def by_karras(formula: OnSigmas, whole: bool) -> Callable[[Toy, Noise], Result]:
    times = [time_of(sigma) for sigma in karras()]
    times = [float(round(at)) for at in times] if whole else times
    return lambda toy, noise: formula(toy, noise, karras(), times)


FORMULAS: dict[str, Callable[[Toy, Noise], Result]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "deis": one_more(deis),
    "dpm2": spread_evenly(dpm2),
    "dpm2_a": spread_evenly(dpm2_ancestral),
    "dpmpp_2m": one_more(dpmpp_2m),
    "dpmpp_2m_karras": by_karras(dpmpp_2m, whole=True),
    "dpmpp_2m_sde": one_more(dpmpp_2m_sde),
    "dpmpp_2m_sde_karras": by_karras(dpmpp_2m_sde, whole=True),
    "dpmpp_2s": one_more(dpmpp_2s),
    "euler": spread_evenly(euler),
    "euler_karras": by_karras(euler, whole=False),
    "euler_a": spread_evenly(euler_ancestral),
    "heun": spread_evenly(heun),
    "lcm": lcm,
    "lms": spread_evenly(lms),
    "lms_karras": by_karras(lms, whole=False),
    "pndm": pndm,
    "unipc": one_more(unipc),
}


def published(predicts: str) -> Any:
    """The sampler of Stable Diffusion 1.5 as it was published."""
    return diffusers.DDIMScheduler.from_config(
        {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": TRAINED,
            "steps_offset": 1,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "prediction_type": predicts,
        }
    )


def by_the_library(name: str, predicts: str) -> tuple[list[tuple[float, Array]], Array]:
    """What the network is shown and when, and the result."""
    scheduler = scheduler_for(published(predicts), name)
    scheduler.set_timesteps(STEPS)
    draw = torch.Generator().manual_seed(5)
    sample = torch.randn(SHAPE, generator=draw) * scheduler.init_noise_sigma
    extra = {"generator": draw} if "generator" in scheduler.step.__code__.co_varnames else {}
    seen: list[tuple[float, Array]] = []
    for at in scheduler.timesteps:
        shown = scheduler.scale_model_input(sample, at)
        seen.append((float(at), shown.numpy().copy()))
        said = torch.from_numpy(said_by(shown.numpy(), float(at)))
        drawn = torch.random.get_rng_state()
        sample = scheduler.step(said, at, sample, **extra).prev_sample
        assert torch.equal(torch.random.get_rng_state(), drawn)  # no noise of anybody else's
    return seen, sample.numpy()


def test_every_name_has_a_formula():
    assert FORMULAS.keys() == SAMPLERS.keys()


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_takes_the_steps_of_its_formula(name: str, predicts: str):
    toy = Toy(predicts)
    if predicts in SAMPLERS[name].cannot:
        with pytest.raises(InvalidFieldValueError, match=rf"predicts {predicts}; .*ddim.* can"):
            scheduler_for(published(predicts), name)
        return
    result, sigma = FORMULAS[name](toy, Noise())
    seen, made = by_the_library(name, predicts)
    assert len(seen) == len(toy.seen)
    for place, ((at, shown), (wanted_at, wanted)) in enumerate(zip(seen, toy.seen, strict=True)):
        assert at == pytest.approx(wanted_at, abs=0.01), place
        assert np.abs(shown - wanted).max() < WITHIN, place
    assert np.abs(made - result / math.sqrt(1 + sigma**2)).max() < WITHIN


def test_a_neighbouring_method_does_not_pass_for_another():
    results: list[Array] = []
    for formula in FORMULAS.values():
        made, sigma = formula(Toy("epsilon"), Noise())
        results.append(made / math.sqrt(1 + sigma**2))
    for place, one in enumerate(results):
        assert all(np.abs(one - other).max() > 10 * WITHIN for other in results[:place])


@pytest.mark.parametrize(
    ("spacing", "wanted"),
    [
        ("linspace", [999 * (1 - place / 7) for place in range(STEPS)]),
        ("leading", [875 - 125 * place + 1 for place in range(STEPS)]),
        ("trailing", [999 - 125 * place for place in range(STEPS)]),
    ],
)
@pytest.mark.parametrize("name", ["euler", "euler_a", "heun", "lms", "ddim", "ddpm"])
def test_the_moments_are_the_model_s_and_the_sigmas_those_of_the_moments(
    name: str, spacing: str, wanted: list[float]
):
    told = {k: v for k, v in published("epsilon").config.items() if not k.startswith("_")}
    own = diffusers.DDIMScheduler.from_config({**told, "timestep_spacing": spacing})
    made = scheduler_for(own, name)
    made.set_timesteps(STEPS)
    times = list(dict.fromkeys(float(at) for at in made.timesteps))
    assert times == pytest.approx(wanted, abs=0.51 if name.startswith("dd") else 1e-3)
    if hasattr(made, "sigmas"):
        sigmas = list(dict.fromkeys(float(sigma) for sigma in made.sigmas))
        assert sigmas == pytest.approx([*map(sigma_at, times), 0.0], rel=WITHIN)
