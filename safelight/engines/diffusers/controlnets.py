"""Opens ControlNets, and accounts for what their files and configs say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.folders import account_of_part
from safelight.engines.diffusers.lora_files import LayerNames
from safelight.engines.diffusers.tensors import first_not_finite, shapes_in
from safelight.weights.layouts import write_controlnet_layout

_START = "control_model."
_HINT_OUT = 14
"""Number of the last layer that looks at the control picture; those before it are even."""
_RENAMED = (
    (re.compile(r"zero_convs\.(\d+)\.0\."), r"controlnet_down_blocks.\1."),
    (re.compile(r"middle_block_out\.0\."), "controlnet_mid_block."),
    (re.compile(r"input_hint_block\.0\."), "controlnet_cond_embedding.conv_in."),
    (re.compile(rf"input_hint_block\.{_HINT_OUT}\."), "controlnet_cond_embedding.conv_out."),
)
_HINT = re.compile(r"input_hint_block\.(\d+)\.(.+)")


@dataclass(frozen=True)
class OpenedNet:
    """A ControlNet, and what became of all that its files say."""

    net: Any
    account: Account

    @property
    def bytes(self) -> int:
        """Memory its weights take."""
        return sum(weight.nbytes for weight in self.net.parameters())


def open_controlnet(path: Path) -> OpenedNet:
    """Open a diffusers folder or a single file.

    Raises:
        ValueError: it lacks tensors, whose numbers would be made up, or holds some that are no
            finite numbers.
        InvalidMediaError: a single file that is none of a ControlNet.
    """
    import torch
    from diffusers.models.controlnets.controlnet import ControlNetModel

    if path.is_dir():
        opened: Any = ControlNetModel.from_pretrained(
            path, local_files_only=True, output_loading_info=True
        )
        net, told = opened
        _require_whole(sorted(str(name) for name in told["missing_keys"]))
        account = account_of_part(path, ControlNetModel, net, told["unexpected_keys"])
    else:
        with TemporaryDirectory() as folder:
            shapes = shapes_in(path)
            write_controlnet_layout(shapes, path.name, Path(folder))
            with torch.device("meta"):  # its names, without numbers
                config: Any = ControlNetModel.load_config(folder)
                planned = ControlNetModel.from_config(config)
            account = _account_of_file(shapes, planned)
            net = ControlNetModel.from_single_file(str(path), config=folder, local_files_only=True)
    first = first_not_finite(net.state_dict())
    if first is not None:
        raise ValueError(f"its {first} holds values that are no finite numbers")
    return OpenedNet(net, account)


def _account_of_file(shapes: Mapping[str, tuple[int, ...]], net: Any) -> Account:  # noqa: ANN401
    layers = LayerNames(SimpleNamespace(unet=net))
    lacking = set(net.state_dict())
    used: set[str] = set()
    unused: dict[str, str] = {}
    for name in shapes:
        place = _place_of(name.removeprefix(_START), layers)
        if place in lacking:
            used.add(name)
            lacking.discard(place)
        else:
            unused[name] = "the ControlNet has no such tensor"
    _require_whole(sorted(lacking))
    return Account(frozenset(used), unused)


def _place_of(name: str, layers: LayerNames) -> str:
    for pattern, theirs in _RENAMED:
        if pattern.match(name):
            return pattern.sub(theirs, name)
    hint = _HINT.fullmatch(name)
    if hint is not None:
        return f"controlnet_cond_embedding.blocks.{int(hint[1]) // 2 - 1}.{hint[2]}"
    layer, _, leaf = name.rpartition(".")
    found = layers.find("lora_unet_" + layer.replace(".", "_"))
    return "" if found is None else f"{found[1]}.{leaf}"


def _require_whole(lacking: list[str]) -> None:
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} tensors: {several(lacking)}")
