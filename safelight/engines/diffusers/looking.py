"""Small pictures of what is being drawn, while it is drawn: latents to colours by a linear map.

The map is that of the model's own VAE: a few hundred patches of colour are encoded by it once, and
what leads back to their colours is found by least squares. So it fits every family, and models with
a VAE of their own, and costs a few thousandths of what a picture does.
"""

import io
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from safelight.engines.machine.transfers import Landing, Transfers
from safelight.progress import looked_at, show

if TYPE_CHECKING:
    import torch

SECONDS_BETWEEN = 1.0
LONGEST_SIDE = 160
"""Pixels."""
PATCHES = 16
"""Latents along each side of what is encoded."""
RIDGE = 1e-3
"""Keeps channels that say nothing of colours out of the map."""
MOST_SPREAD = 1.3
"""Latents that lie further apart than those of colours, by so much, are noise and drawn nearer."""
_maps: "WeakKeyDictionary[Any, ColourMap | None]" = WeakKeyDictionary()


class ColourMap:
    """From the latents of one VAE to colours."""

    def __init__(self, weights: "torch.Tensor", spread: float) -> None:
        self._weights = weights
        self._spread = spread

    @classmethod
    def of(cls, vae: Any, factor: int) -> "ColourMap":  # noqa: ANN401  (diffusers is untyped)
        """Learn it.

        Args:
            vae: an encoder of pictures.
            factor: pixels a latent, along each side.
        """
        import torch
        from torch.nn.functional import avg_pool2d, interpolate

        side = PATCHES * factor
        chance = torch.Generator("cpu").manual_seed(1)
        drawn = torch.rand((1, 3, 6, 6), generator=chance).round()  # as wide as colours are apart
        picture = interpolate(drawn, (side, side), mode="bilinear", align_corners=True)
        with torch.no_grad():
            sent = (picture * 2 - 1).to(device=vae.device, dtype=vae.dtype)
            encoded = vae.encode(sent)
            held = getattr(encoded, "latent_dist", None)
            means = encoded.latents if held is None else held.mode()
            config = vae.config
            shift = getattr(config, "shift_factor", None) or 0.0
            latents = ((means - shift) * config.scaling_factor)[0].float().cpu()
        channels, high, wide = latents.shape
        colours = avg_pool2d(picture, (side // high, side // wide))[0].reshape(3, -1).T
        known = torch.cat([latents.reshape(channels, -1), torch.ones(1, high * wide)]).T
        squares = known.T @ known + RIDGE * torch.eye(channels + 1)
        weights = torch.linalg.solve(squares, known.T @ colours)
        return cls(weights, float(latents.std()))

    def colours(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Colours of latents, (C, h, w), as noisy as they are.

        Returns:
            (h, w, 3) uint8, on the device of the latents.
        """
        import torch
        from torch.nn.functional import interpolate

        values = latents.float()
        longest = max(values.shape[1:])
        if longest > LONGEST_SIDE:
            values = interpolate(values[None], scale_factor=LONGEST_SIDE / longest, mode="area")[0]
        values = values * (MOST_SPREAD * self._spread / values.std()).clamp(max=1.0)  # noise
        weights = self._weights.to(values.device)
        mixed = torch.tensordot(values.permute(1, 2, 0), weights[:-1], dims=1) + weights[-1]
        return (mixed * 255).round().clamp(0, 255).to(torch.uint8).contiguous()


class Looking:
    """Shows what a pipeline draws, at most once a second, beside the drawing."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._last = time.monotonic()
        self._coming: Landing | None = None

    def step(self, pipeline: Any, latents: object) -> None:  # noqa: ANN401
        """After a step: show the picture that was on its way, or send one on its way.

        Args:
            pipeline: that makes the step.
            latents: what it has by now.
        """
        if self._coming is not None:
            show(_encoded(self._coming.wait()))
            self._coming = None
            return
        now = time.monotonic()
        if not looked_at() or now - self._last < SECONDS_BETWEEN:
            return
        self._last = now
        known = map_of(pipeline)
        first = None if known is None else self._first(pipeline, latents)
        if known is None or first is None:
            return
        levels = known.colours(first)
        self._coming = Transfers(str(levels.device)).down(levels)

    def _first(self, pipeline: Any, latents: Any) -> "torch.Tensor | None":  # noqa: ANN401
        """Latents of the first picture, (C, h, w); None where they are of another kind."""
        if getattr(latents, "ndim", 0) == 3 and hasattr(pipeline, "_unpack_latents"):
            width, height = self._size
            factor = int(pipeline.vae_scale_factor)
            latents = pipeline._unpack_latents(latents[:1], height, width, factor)
        return latents[0] if getattr(latents, "ndim", 0) == 4 else None


def map_of(pipeline: Any) -> ColourMap | None:  # noqa: ANN401
    """The map of a pipeline's VAE; None where its latents have none."""
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        return None
    if vae not in _maps:
        try:
            _maps[vae] = ColourMap.of(vae, int(pipeline.vae_scale_factor))
        except (AttributeError, RuntimeError, TypeError, ValueError):  # of no kind that is known
            _maps[vae] = None
    return _maps[vae]


def _encoded(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=1)
    return out.getvalue()
