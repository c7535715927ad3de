"""The four-pass flow network of RIFE 4.0, as arithmetic on its weights.

Source:
    As of `safelight.engines.rife.engine`.
"""

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

    def middle(self, pair: "Tensor", timestep: float, flow_scale: float) -> "Tensor":
        """The frame a fraction `timestep` of the way between two.

        Args:
            pair: (2, 3, H, W) from 0 to 1, sides multiples of 64 / `flow_scale`.
            timestep: 0 to 1.
            flow_scale: size at which motion is measured; 1 is the frames' own.

        Returns:
            (3, H, W), about 0 to 1.
        """
        import torch

        when = torch.full_like(pair[:1, :1], timestep)
        scales = [scale / flow_scale for scale in SCALES]
        flow, mask, more, shift = self._first_two(pair, when, scales)
        if bool(_far(more)):
            scales = [2 * scale for scale in scales]
            flow, mask, more, shift = self._first_two(pair, when, scales)
        return self._rest(pair, when, scales, flow + more, mask + shift)

    def near(self, pair: "Tensor", when: "Tensor", flow_scale: float) -> "tuple[Tensor, Tensor]":
        """`middle` for near motion, without a question to the device on the way.

        Args:
            pair: as of `middle`.
            when: (1, 1, H, W), the timestep everywhere.
            flow_scale: as of `middle`.

        Returns:
            The frame, and whether the motion is far, so that `middle` has to make it.
        """
        scales = [scale / flow_scale for scale in SCALES]
        flow, mask, more, shift = self._first_two(pair, when, scales)
        return self._rest(pair, when, scales, flow + more, mask + shift), _far(more)

    def _first_two(
        self, pair: "Tensor", when: "Tensor", scales: list[float]
    ) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Flow and mask of the first pass, and what the second adds to them."""
        import torch

        one, two = pair[:1], pair[1:]
        flow, mask = self._pass(0, torch.cat((one, two, when), 1), None, scales[0])
        more, shift = self._refined(1, one, two, when, flow, mask, scales[1])
        return flow, mask, more, shift

    def _rest(
        self,
        pair: "Tensor",
        when: "Tensor",
        scales: list[float],
        flow: "Tensor",
        mask: "Tensor",
    ) -> "Tensor":
        import torch

        one, two = pair[:1], pair[1:]
        for index in range(2, len(SCALES)):
            more, shift = self._refined(index, one, two, when, flow, mask, scales[index])
            flow, mask = flow + more, mask + shift
        seen = torch.sigmoid(mask)
        return (_warped(one, flow[:, :2]) * seen + _warped(two, flow[:, 2:]) * (1 - seen))[0]

    def _refined(
        self,
        index: int,
        one: "Tensor",
        two: "Tensor",
        when: "Tensor",
        flow: "Tensor",
        mask: "Tensor",
        scale: float,
    ) -> "tuple[Tensor, Tensor]":
        import torch

        moved = (_warped(one, flow[:, :2]), _warped(two, flow[:, 2:]))
        return self._pass(index, torch.cat((*moved, when, mask), 1), flow, scale)

    def _pass(
        self, index: int, seen: "Tensor", flow: "Tensor | None", scale: float
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


def _warped(frame: "Tensor", flow: "Tensor") -> "Tensor":
    """Each pixel of `frame` (1, 3, H, W) fetched from `flow` (1, 2, H, W) pixels away."""
    import torch
    from torch.nn import functional

    height, width = frame.shape[2:]
    # float32 always: half a pixel in 4000 is lost in half precision
    flow = flow.float()
    across = torch.linspace(-1, 1, width, device=frame.device) + flow[:, 0] * (2 / (width - 1))
    down = torch.linspace(-1, 1, height, device=frame.device)[:, None] + flow[:, 1] * (
        2 / (height - 1)
    )
    moved = functional.grid_sample(
        frame.float(),
        torch.stack((across, down), dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return moved.to(frame.dtype)
