"""The four-pass flow network of RIFE 4.0, as arithmetic on its weights.

Source:
    As of `safelight.engines.rife.engine`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

from safelight.weights.packaged import packaged_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SCALES = (8, 4, 2, 1)
"""The four passes look at the frames this many times smaller, coarse to fine."""
DEPTH = 8
"""Convolutions in each pass."""
STRIDE = 4
"""A pass halves twice what it sees."""
REACH = 40
"""Rows a pass looks around, of the frames as it sees them: 3 in the halvings, 32 in the
convolutions at a quarter of the size, 4 in the enlargement and the last resize; then up to a
multiple of `STRIDE`."""
FAR = 32.0
"""Motion in pixels above which the second pass starts again at half the size."""


@dataclass(frozen=True)
class Network:
    """The four-pass flow network, as arithmetic on its weights."""

    weights: "dict[str, Tensor]"
    """Tensors by their name in the file, all on one device."""

    @classmethod
    def load(cls, path: Path, device: str, dtype: "torch.dtype") -> Self:
        """Read the weights; the file also holds a teacher and a refiner, which 4.0 runs without.

        Raises:
            ChecksumMismatchError: it is another file than that of the package.
        """
        import torch

        state: dict[str, Tensor] = torch.load(
            BytesIO(packaged_bytes(path)), map_location="cpu", weights_only=True
        )
        used = tuple(f"module.block{index}." for index in range(len(SCALES)))
        return cls(
            {
                name.removeprefix("module."): tensor.to(device=device, dtype=dtype)
                for name, tensor in state.items()
                if name.startswith(used)
            }
        )

    @property
    def bytes(self) -> int:
        """Memory the weights take."""
        return sum(tensor.nbytes for tensor in self.weights.values())

    def middle(self, pair: "Tensor", timestep: float, rows: int | None = None) -> "Tensor":
        """The frame a fraction `timestep` of the way between two.

        Args:
            pair: (2, 3, H, W) from 0 to 1, sides multiples of 128.
            timestep: 0 to 1.
            rows: how many rows a pass takes at once, of the frames as it sees them, a multiple of
                `STRIDE`; None for all. The frame is the same, fewer take less memory.

        Returns:
            (3, H, W), about 0 to 1.
        """
        import torch

        when = torch.full_like(pair[:1, :1], timestep)
        scales = SCALES
        flow, mask, more, shift = self._first_two(pair, when, scales, rows)
        if bool(_far(more)):
            del flow, mask, more, shift  # as much memory as the new ones
            scales = tuple(2 * scale for scale in scales)
            flow, mask, more, shift = self._first_two(pair, when, scales, rows)
        return self._rest(pair, when, scales, flow.add_(more), mask.add_(shift), rows)

    def near(self, pair: "Tensor", when: "Tensor") -> "tuple[Tensor, Tensor]":
        """`middle` for near motion, without a question to the device on the way.

        Args:
            pair: as of `middle`.
            when: (1, 1, H, W), the timestep everywhere.

        Returns:
            The frame, and whether the motion is far, so that `middle` has to make it.
        """
        flow, mask, more, shift = self._first_two(pair, when, SCALES, None)
        far = _far(more)
        return self._rest(pair, when, SCALES, flow.add_(more), mask.add_(shift), None), far

    def _first_two(
        self, pair: "Tensor", when: "Tensor", scales: Sequence[int], rows: int | None
    ) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Flow and mask of the first pass, and what the second adds to them."""
        import torch

        def seen(part: slice) -> "Tensor":
            one, two = pair[:1, :, part], pair[1:, :, part]
            return torch.cat((one, two, when[:, :, part]), 1)

        flow, mask = self._in_bands(0, seen, None, scales[0], pair.shape[2], rows)
        more, shift = self._refined(1, pair, when, flow, mask, scales[1], rows)
        return flow, mask, more, shift

    def _rest(
        self,
        pair: "Tensor",
        when: "Tensor",
        scales: Sequence[int],
        flow: "Tensor",
        mask: "Tensor",
        rows: int | None,
    ) -> "Tensor":
        """The frame, from what the first two passes found, which is overwritten."""
        import torch

        for index in range(2, len(SCALES)):
            more, shift = self._refined(index, pair, when, flow, mask, scales[index], rows)
            flow, mask = flow.add_(more), mask.add_(shift)
            del more, shift
        height = pair.shape[2]
        parts: list[Tensor] = []
        for part in _bands(height, rows or height):
            seen = torch.sigmoid(mask[:, :, part])
            one, two = _warped(pair[:1], flow[:, :2], part), _warped(pair[1:], flow[:, 2:], part)
            parts.append((one * seen + two * (1 - seen))[0])
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _refined(
        self,
        index: int,
        pair: "Tensor",
        when: "Tensor",
        flow: "Tensor",
        mask: "Tensor",
        scale: int,
        rows: int | None,
    ) -> "tuple[Tensor, Tensor]":
        import torch

        def seen(part: slice) -> "Tensor":
            moved = (_warped(pair[:1], flow[:, :2], part), _warped(pair[1:], flow[:, 2:], part))
            return torch.cat((*moved, when[:, :, part], mask[:, :, part]), 1)

        return self._in_bands(index, seen, flow, scale, pair.shape[2], rows)

    def _in_bands(
        self,
        index: int,
        seen: "Callable[[slice], Tensor]",
        flow: "Tensor | None",
        scale: int,
        height: int,
        rows: int | None,
    ) -> "tuple[Tensor, Tensor]":
        """`_pass`, some rows at a time, with as many around them as it looks at.

        Args:
            index: which pass.
            seen: what it sees of these rows of the frames.
            flow: see `_pass`.
            scale: see `_pass`.
            height: rows of the frames.
            rows: see `middle`.
        """
        import torch

        if rows is None or rows * scale >= height:
            return self._pass(index, seen(slice(0, height)), flow, scale)
        flows: list[Tensor] = []
        masks: list[Tensor] = []
        for part in _bands(height, rows * scale):
            start = max(part.start - REACH * scale, 0)
            window = slice(start, min(part.stop + REACH * scale, height))
            there = None if flow is None else flow[:, :, window]
            more, shift = self._pass(index, seen(window), there, scale)
            kept = slice(part.start - start, part.stop - start)
            flows.append(more[:, :, kept].clone())
            masks.append(shift[:, :, kept].clone())
            del more, shift
        return torch.cat(flows, 2), torch.cat(masks, 2)

    def _pass(
        self, index: int, seen: "Tensor", flow: "Tensor | None", scale: int
    ) -> "tuple[Tensor, Tensor]":
        """Change of the flow (1, 4, H, W) in pixels, and of the mask (1, 1, H, W)."""
        import torch
        from torch.nn import functional

        seen = _resized(seen, 1 / scale)
        if flow is not None:
            seen = torch.cat((seen, _resized(flow, 1 / scale) / scale), 1)
        block = f"block{index}"
        features = self._layer(f"{block}.conv0.0", seen, stride=2)
        features = self._layer(f"{block}.conv0.1", features, stride=2)
        deep = features
        for layer in range(DEPTH):
            deep = self._layer(f"{block}.convblock.{layer}", deep)
        made = functional.conv_transpose2d(
            deep + features,
            self.weights[f"{block}.lastconv.weight"],
            self.weights[f"{block}.lastconv.bias"],
            stride=2,
            padding=1,
        )
        made = _resized(made, 2 * scale)
        return made[:, :4] * scale * 2, made[:, 4:5]

    def _layer(self, name: str, seen: "Tensor", stride: int = 1) -> "Tensor":
        from torch.nn import functional

        weight, bias = self.weights[f"{name}.0.weight"], self.weights[f"{name}.0.bias"]
        made = functional.conv2d(seen, weight, bias, stride=stride, padding=1)
        return functional.prelu(made, self.weights[f"{name}.1.weight"])


def _far(more: "Tensor") -> "Tensor":
    """Whether there is far motion from both frames; on the device."""
    import torch

    return torch.minimum(more[:, :2].abs().max(), more[:, 2:].abs().max()) > FAR


def _resized(seen: "Tensor", factor: float) -> "Tensor":
    from torch.nn import functional

    if factor == 1:
        return seen
    return functional.interpolate(
        seen,
        scale_factor=factor,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )


def _warped(frame: "Tensor", flow: "Tensor", part: slice) -> "Tensor":
    """Rows of a result whose pixels are fetched from `flow` (1, 2, H, W) pixels away.

    Args:
        frame: (1, 3, H, W), where they are fetched.
        flow: across and down.
        part: which rows.
    """
    import torch
    from torch.nn import functional

    height, width = frame.shape[2:]
    # float32 always: half a pixel in 4000 is lost in half precision
    flow = flow[:, :, part].float()
    across = torch.linspace(-1, 1, width, device=frame.device) + flow[:, 0] * (2 / (width - 1))
    down = torch.linspace(-1, 1, height, device=frame.device)[part, None]
    down = down + flow[:, 1] * (2 / (height - 1))
    moved = functional.grid_sample(
        frame.float(),
        torch.stack((across, down), dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return moved.to(frame.dtype)


def _bands(height: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]
