"""fal as an engine: pictures by FLUX, clips by Hailuo."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from pydantic import JsonValue, SecretStr

from safelight.engines.fal.calls import ENGINE_ID, FalCalls, head, source
from safelight.engines.fal.refusals import FUNDS, TITLE, refusal, says
from safelight.engines.interface import (
    AnimateRequest,
    DrawRequest,
    PromptRequest,
    RedrawRequest,
    Request,
)
from safelight.engines.remote.clips import Fetched, clip_of
from safelight.engines.remote.fetching import fetched, picture_of
from safelight.engines.remote.jobs import Wanted, run_job
from safelight.engines.remote.provider import (
    PROBE_SECONDS,
    Balance,
    RemoteEngine,
    digest_of,
    known_model,
    left_out,
    require_plain,
    require_within,
)
from safelight.engines.remote.uploading import png_of
from safelight.engines.results import NO_GUIDES, Clip, Guides, Pictures
from safelight.errors import DependencyMissingError
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.settings import settings

MEGAPIXEL = 1_000_000
PROMPT = "natural motion"
"""Where there is none, and a model wants one."""


@dataclass(frozen=True)
class Drawer:
    """A model that draws pictures, and what it costs."""

    usd_per_megapixel: float
    """As its page said in November 2026; begun megapixels count whole."""
    steps: tuple[int, int]
    """Least and most."""


@dataclass(frozen=True)
class Mover:
    """A model that makes clips of a picture."""

    usd_per_second: float
    """As its page said in November 2026."""
    seconds: tuple[int, ...] = (6, 10)
    """Lengths that it makes."""


DRAWERS = {"fal-ai/flux/dev": Drawer(0.025, (1, 50)), "fal-ai/flux/schnell": Drawer(0.003, (1, 12))}
REDRAWERS = {"fal-ai/flux/dev/image-to-image": Drawer(0.03, (10, 50))}
MOVERS = {"fal-ai/minimax/hailuo-02/standard/image-to-video": Mover(0.045)}


class Fal(RemoteEngine):
    """Asked through its queue; nothing is sent again that may have arrived."""

    engine_id: ClassVar[str] = ENGINE_ID
    title: ClassVar[str] = TITLE
    variables: ClassVar[tuple[str, ...]] = ("SAFELIGHT_FAL_KEY",)
    version: ClassVar[str] = "queue+1"

    def keys(self) -> tuple[SecretStr | None, ...]:
        """The one key."""
        return (settings().fal_key,)

    def places(self) -> tuple[str, ...]:
        """Queue, account and storage."""
        return settings().fal_url, settings().fal_api_url, settings().fal_storage_url

    def ask_standing(self) -> Balance | None:
        """Only keys of administrators are told the balance; others show that the account answers.

        Raises:
            PipelineError: it does not answer, or does not know the key.
        """
        provider = self.provider()
        url = f"{settings().fal_api_url.rstrip('/')}/v1/account/billing?expand=credits"
        answer = provider.ask("GET", url, head(), seconds=PROBE_SECONDS)
        if answer.status == 403 and not says(answer, FUNDS):
            return None
        if not answer.good:
            raise refusal(provider, answer)
        credits = answer.fields.get("credits")
        left = cast("Mapping[str, object]", credits) if isinstance(credits, dict) else {}
        amount = left.get("current_balance")
        return (
            Balance(float(amount), str(left.get("currency", "USD")))
            if isinstance(amount, int | float)
            else None
        )

    def price(self, request: Request) -> float:
        """By megapixels, or by seconds."""
        if isinstance(request, DrawRequest):
            _, model = _drawer(request, DRAWERS, "fal-ai/flux/dev")
            megapixels = math.ceil(request.width * request.height / MEGAPIXEL)
            return model.usd_per_megapixel * megapixels * request.num_images
        if isinstance(request, RedrawRequest):
            _, model = _drawer(request, REDRAWERS, "fal-ai/flux/dev/image-to-image")
            require_within("strength", request.strength, 0.01, 1, TITLE)
            return model.usd_per_megapixel * request.num_images
        if isinstance(request, AnimateRequest):
            _, model = _mover(request)
            return model.usd_per_second * _length(request, model)
        raise DependencyMissingError(f"{TITLE} does no such work", "name another engine")

    def draw(self, request: DrawRequest, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Draws.draw`; each picture is a job of its own, so that its seed makes it alone."""
        del guides
        endpoint, model = _drawer(request, DRAWERS, "fal-ai/flux/dev")
        size = (request.width, request.height)
        sent: dict[str, JsonValue] = {"image_size": {"width": size[0], "height": size[1]}}
        return self._drawn(request, endpoint, model, sent, size, None)

    def redraw(self, request: RedrawRequest, image: Pixels, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Redraws.redraw`."""
        del guides
        endpoint, model = _drawer(request, REDRAWERS, "fal-ai/flux/dev/image-to-image")
        sent: dict[str, JsonValue] = {"strength": request.strength}
        size = (image.shape[1], image.shape[0])
        return self._drawn(request, endpoint, model, sent, size, image)

    def animate(self, request: AnimateRequest, image: Pixels) -> Clip:
        """See `Animates.animate`."""
        endpoint, model = _mover(request)
        left_out(TITLE, negative_prompt=request.negative_prompt, seed=request.seed is not None)
        if not request.prompt:
            note(f"{TITLE} wants a prompt: it was given {PROMPT!r}")
        seconds = _length(request, model)
        body: dict[str, JsonValue] = {
            "prompt": request.prompt or PROMPT,
            "duration": str(seconds),
            "prompt_optimizer": False,
        }
        picture = png_of(image)
        calls = FalCalls(self.provider(), endpoint, body, picture)
        price = model.usd_per_second * seconds
        wanted = Wanted(endpoint, digest_of(request, [picture]), lambda _: price, lambda _: price)
        return clip_of(self.title, request, lambda folder: self._fetch(calls, wanted, folder))

    def _fetch(self, calls: FalCalls, wanted: Wanted, folder: Path) -> Fetched:
        (path,) = run_job(calls, wanted, lambda job: fetched(job, source(), "video", folder))
        return path

    def _drawn(
        self,
        request: PromptRequest,
        endpoint: str,
        model: Drawer,
        sent: Mapping[str, JsonValue],
        size: tuple[int, int],
        image: Pixels | None,
    ) -> Pictures:
        left_out(TITLE, negative_prompt=request.negative_prompt)
        picture = None if image is None else png_of(image)
        price = model.usd_per_megapixel * math.ceil(size[0] * size[1] / MEGAPIXEL)
        made: list[Pixels] = []
        for at in range(request.num_images):
            body: dict[str, JsonValue] = {
                **sent,
                "prompt": request.prompt,
                "num_inference_steps": request.steps,
                "guidance_scale": request.guidance_scale,
                "num_images": 1,
                "seed": (request.seed or 0) + at,
                "output_format": "png",
            }
            calls = FalCalls(self.provider(), endpoint, body, picture)
            content = digest_of(request, [picture] if picture else [], at)
            wanted = Wanted(endpoint, content, lambda _: price, lambda _: price)
            made.append(picture_of(calls, wanted, source(), size))
        return Pictures(tuple(made), price * len(made))


def _drawer(request: PromptRequest, models: Mapping[str, Drawer], usual: str) -> tuple[str, Drawer]:
    require_plain(request, TITLE)
    endpoint, model = known_model(request.model, models, usual, TITLE)
    require_within("steps", request.steps, *model.steps, TITLE)
    require_within("guidance_scale", request.guidance_scale, 1, 20, TITLE)
    return endpoint, model


def _mover(request: AnimateRequest) -> tuple[str, Mover]:
    return known_model(request.model, MOVERS, next(iter(MOVERS)), TITLE)


def _length(request: AnimateRequest, model: Mover) -> int:
    fits = [seconds for seconds in model.seconds if seconds >= request.seconds]
    if not fits:
        require_within("duration", request.seconds, 0, model.seconds[-1], TITLE)
    return fits[0]


ENGINE = Fal()
