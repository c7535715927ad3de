"""Runware as an engine: pictures by FLUX, enlarging by several networks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from pydantic import JsonValue, SecretStr

from safelight.engines.interface import (
    DrawRequest,
    EnlargeRequest,
    FillRequest,
    PromptRequest,
    RedrawRequest,
    Request,
)
from safelight.engines.remote.fetching import Source, fetched, own_of, picture_of
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
from safelight.engines.remote.uploading import data_uri, media_type_of, png_of, require_size
from safelight.engines.results import NO_GUIDES, Guides, Pictures
from safelight.engines.runware.calls import (
    ENGINE_ID,
    TITLE,
    RunwareCalls,
    ask,
    entries,
    first_error,
    with_id,
)
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.media.video.stream import probe
from safelight.pixels import Pixels
from safelight.progress import step
from safelight.settings import settings

GRID = 64
"""Sides of drawn pictures are multiples of it, px."""


@dataclass(frozen=True)
class Drawer:
    """A model that draws, and what it costs at the most."""

    usd_per_megapixel: float
    """An upper bound of what was charged in November 2026; the charge itself is told."""
    negative: bool = False
    """Whether it reads a negative prompt."""


@dataclass(frozen=True)
class Enlarger:
    """A network that enlarges, and what it costs at the most."""

    factors: tuple[int, ...]
    """It has."""
    usd: float
    """An upper bound for one picture."""


DRAWERS = {"runware:101@1": Drawer(0.02), "runware:100@1": Drawer(0.005)}
"""FLUX.1 dev and schnell."""
FILLERS = {"runware:102@1": Drawer(0.05)}
"""FLUX.1 Fill."""
ENLARGERS = {
    "runware:504@1": Enlarger((2, 4), 0.01),
    "runware:503@1": Enlarger((2, 4), 0.02),
    "runware:500@1": Enlarger((2, 4), 0.1),
}
"""Real-ESRGAN, SwinIR, Clarity."""
VIDEO_ENLARGERS = {"bria:50@1": Enlarger((2, 4), 0.08)}
"""Bria; an upper bound for one second."""
LARGEST_CLIP = 100 * 2**20
COMMON: dict[str, JsonValue] = {
    "outputType": "URL",
    "includeCost": True,
    "deliveryMethod": "async",
}
"""Of every task whose result is fetched."""
NAMES = {"photo": "runware:504@1", "video": "runware:504@1", "anime": "runware:503@1"}
"""Ours, as Runware calls them."""


class Runware(RemoteEngine):
    """Asked by tasks that have our own ids."""

    engine_id: ClassVar[str] = ENGINE_ID
    title: ClassVar[str] = TITLE
    variables: ClassVar[tuple[str, ...]] = ("SAFELIGHT_RUNWARE_KEY",)
    version: ClassVar[str] = "v1+1"

    def keys(self) -> tuple[SecretStr | None, ...]:
        """The one key."""
        return (settings().runware_key,)

    def places(self) -> tuple[str, ...]:
        """The one address."""
        return (settings().runware_url,)

    def ask_standing(self) -> Balance | None:
        """The account's details.

        Raises:
            PipelineError: it does not answer, or does not know the key.
        """
        provider = self.provider()
        task = with_id("accountManagement", operation="getDetails")
        answer = ask(provider, task, seconds=PROBE_SECONDS)
        error = first_error(provider, answer)
        if error is not None:
            raise error
        for each in entries(answer, "data"):
            amount = _amount(each.get("balance"))
            if amount is not None:
                return Balance(amount)
        return None

    def price(self, request: Request) -> float:
        """At the most."""
        if isinstance(request, DrawRequest):
            _, model = _drawer(request, DRAWERS)
            for name, side in (("width", request.width), ("height", request.height)):
                require_within(name, side, 128, 2048, TITLE)
                if side % GRID:
                    raise InvalidFieldValueError(
                        f"{name} is {side}, {TITLE} takes multiples of {GRID}", f"correct {name}"
                    )
            megapixels = request.width * request.height / 1e6
            return model.usd_per_megapixel * max(1, math.ceil(megapixels)) * request.num_images
        if isinstance(request, RedrawRequest):
            return _drawer(request, DRAWERS)[1].usd_per_megapixel * request.num_images
        if isinstance(request, FillRequest):
            return _drawer(request, FILLERS)[1].usd_per_megapixel * request.num_images
        if isinstance(request, EnlargeRequest):
            return _enlarger(request)[1].usd
        raise DependencyMissingError(f"{TITLE} does no such work", "name another engine")

    def draw(self, request: DrawRequest, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Draws.draw`."""
        del guides
        name, model = _drawer(request, DRAWERS)
        return self._drawn(request, name, model, (request.width, request.height), {}, [])

    def redraw(self, request: RedrawRequest, image: Pixels, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Redraws.redraw`."""
        del guides
        name, model = _drawer(request, DRAWERS)
        picture = png_of(image)
        more: dict[str, JsonValue] = {"seedImage": data_uri(picture), "strength": request.strength}
        size = (image.shape[1], image.shape[0])
        return self._drawn(request, name, model, size, more, [picture])

    def fill(
        self, request: FillRequest, image: Pixels, mask: Pixels, guides: Guides = NO_GUIDES
    ) -> Pictures:
        """See `Fills.fill`."""
        del guides
        name, model = _drawer(request, FILLERS)
        files = [png_of(image), png_of(mask)]
        more: dict[str, JsonValue] = {
            "seedImage": data_uri(files[0]),
            "maskImage": data_uri(files[1]),
            "strength": request.strength,
        }
        size = (image.shape[1], image.shape[0])
        return self._drawn(request, name, model, size, more, files)

    def open_enlarger(self, request: EnlargeRequest) -> "OpenEnlarger":
        """See `Enlarges.open_enlarger`."""
        return OpenEnlarger(self, request)

    def enlarged(self, request: EnlargeRequest, image: Pixels) -> Pixels:
        """One picture, larger."""
        name, model = _enlarger(request)
        picture = png_of(image)
        task: dict[str, JsonValue] = {
            "taskType": "upscale",
            "model": name,
            "inputs": {"image": data_uri(picture)},
            "upscaleFactor": request.factor,
        }
        height, width = image.shape[:2]
        size = (width * request.factor, height * request.factor)
        return self._one(task, name, digest_of(request, [picture]), model.usd, size)

    def enlarge_video(self, request: EnlargeRequest, video: Path, folder: Path) -> Path:
        """See `EnlargesVideos.enlarge_video`."""
        name, model = _enlarger(request)
        require_size(video.stat().st_size, LARGEST_CLIP, "the video", TITLE)
        info = probe(video)
        content = video.read_bytes()
        usd = model.usd * max(1.0, float(info.frames / info.fps))
        calls = RunwareCalls(
            self.provider(),
            {
                "taskType": "upscale",
                "model": name,
                "upscaleFactor": request.factor,
                "outputFormat": "MP4",
                **COMMON,
            },
            {"video": data_uri(content, media_type_of(video))},
        )
        wanted = Wanted(name, digest_of(request, [content]), lambda _: usd)
        source = Source(TITLE, own_of(settings().runware_url))
        (path,) = run_job(calls, wanted, lambda job: fetched(job, source, "video", folder))[:1]
        return path

    def _drawn(
        self,
        request: PromptRequest,
        name: str,
        model: Drawer,
        size: tuple[int, int],
        more: Mapping[str, JsonValue],
        files: Sequence[bytes],
    ) -> Pictures:
        if not model.negative:
            left_out(TITLE, negative_prompt=request.negative_prompt)
        price = model.usd_per_megapixel * max(1, math.ceil(size[0] * size[1] / 1e6))
        made: list[Pixels] = []
        for at in range(request.num_images):
            task: dict[str, JsonValue] = {
                "taskType": "imageInference",
                "model": name,
                "positivePrompt": request.prompt,
                "width": size[0],
                "height": size[1],
                "steps": request.steps,
                "CFGScale": request.guidance_scale,
                "seed": (request.seed or 0) + at,
                "numberResults": 1,
                **more,
            }
            made.append(self._one(task, name, digest_of(request, files, at), price, size))
        return Pictures(tuple(made))

    def _one(
        self,
        task: Mapping[str, JsonValue],
        model: str,
        content: str,
        price: float,
        size: tuple[int, int],
    ) -> Pixels:
        calls = RunwareCalls(self.provider(), {**task, "outputFormat": "PNG", **COMMON})
        source = Source(TITLE, own_of(settings().runware_url))
        return picture_of(calls, Wanted(model, content, lambda _: price), source, size)


class OpenEnlarger:
    """Enlarges picture after picture, each a job of its own."""

    def __init__(self, engine: Runware, request: EnlargeRequest) -> None:
        self._engine = engine
        self._request = request

    @property
    def together(self) -> int:
        """One: two at once may be more than an account takes."""
        return 1

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None] = step) -> Pixels:
        """See `Enlarging.enlarge`."""
        on_tile(0, 1)
        made = self._engine.enlarged(self._request, image)
        on_tile(1, 1)
        return made

    def close(self) -> None:
        """Nothing is kept."""


def _drawer(request: PromptRequest, models: Mapping[str, Drawer]) -> tuple[str, Drawer]:
    require_plain(request, TITLE)
    name, model = known_model(request.model, models, next(iter(models)), TITLE)
    require_within("steps", request.steps, 1, 100, TITLE)
    require_within("guidance_scale", request.guidance_scale, 0, 50, TITLE)
    return name, model


def _enlarger(request: EnlargeRequest) -> tuple[str, Enlarger]:
    if request.video:
        given = None if request.model in NAMES else request.model
        name, model = known_model(given, VIDEO_ENLARGERS, "bria:50@1", TITLE)
    else:
        named = NAMES.get(request.model, request.model)
        name, model = known_model(named, ENLARGERS, "runware:504@1", TITLE)
    if request.factor not in model.factors:
        raise DependencyMissingError(
            f"{TITLE} does not enlarge {request.factor} times with {name}, but "
            f"{' or '.join(map(str, model.factors))} times",
            "choose such a factor, or let another engine do it",
        )
    return name, model


def _amount(told: JsonValue | None) -> float | None:
    """The balance, which stands as a number or among its parts."""
    if isinstance(told, int | float) and not isinstance(told, bool):
        return float(told)
    parts = cast("Mapping[str, JsonValue]", told) if isinstance(told, dict) else {}
    for name in ("total", "available", "amount", "current", "credits", "balance"):
        if name in parts:
            return _amount(parts[name])
    return None


ENGINE = Runware()
