"""Upscalers as their makers save them: tiny ones with random weights, and the shipped ones."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from safelight.engines.realesrgan.ncnn_graph import read_graph
from safelight.engines.realesrgan.network import NETWORKS, Model, weights_files
from safelight.engines.spandrel_nets.library import spandrel


def made(architecture: str, **options: object) -> Any:
    """A network of spandrel's."""
    spandrel()
    module = import_module(f"spandrel.architectures.{architecture}")
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(module, architecture)(**options).eval()


def compact(scale: int = 2, channels: int = 3, blocks: int = 2) -> Any:
    return made(
        "Compact",
        num_in_ch=channels,
        num_out_ch=channels,
        num_feat=8,
        num_conv=blocks,
        upscale=scale,
    )


def esrgan(scale: int = 4) -> Any:
    net = made("ESRGAN", num_filters=8, num_blocks=1, scale=scale)
    return contrasted(net, net.model[-1])


def span(scale: int = 4) -> Any:
    net = made("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=scale)
    return contrasted(net, net.upsampler[0])


def swinir(scale: int = 4) -> Any:
    net = made(
        "SwinIR",
        img_size=16,
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=8,
        mlp_ratio=2,
        upscale=scale,
        upsampler="nearest+conv",
    )
    return contrasted(net, net.conv_last)


def dat(scale: int = 2) -> Any:
    net = made(
        "DAT",
        img_size=16,
        embed_dim=32,
        split_size=[4, 4],
        depth=[2],
        num_heads=[2],
        expansion_factor=2,
        upscale=scale,
        upsampler="pixelshuffledirect",
    )
    return contrasted(net, net.upsample[0])


def contrasted(net: Any, last: Any, probe: int = 48) -> Any:
    """Have the last layer spread its results over most of 0 to 1."""
    seen = torch.rand(1, 3, probe, probe, generator=torch.Generator().manual_seed(1))
    results: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _m, _i, out: results.append(out))
    with torch.inference_mode():
        net(seen)
    hook.remove()
    deviation = float(results[0].std())
    with torch.no_grad():
        last.weight.mul_(0.25 / max(deviation, 1e-6))
        last.bias.mul_(0.25 / max(deviation, 1e-6))
    with torch.inference_mode():
        last.bias.add_(0.5 - net(seen).mean())
    return net


MAKERS: Mapping[str, Callable[[], Any]] = {
    "Compact": compact,
    "ESRGAN": esrgan,
    "SPAN": span,
    "SwinIR": swinir,
    "DAT": dat,
}


_SQUARES = {"img_size": 16, "depths": [2], "num_heads": [2], "window_size": 8, "upscale": 2}
FURTHER: Mapping[str, Mapping[str, object]] = {
    "ATD": {**_SQUARES, "embed_dim": 12, "upsampler": "pixelshuffledirect"},
    "HAT": {**_SQUARES, "embed_dim": 16, "upsampler": "pixelshuffle", "squeeze_factor": 4},
    "MoSR": {"upscale": 2, "n_block": 2, "dim": 16},
    "PLKSR": {"dim": 16, "n_blocks": 2, "upscaling_factor": 2},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 2, "n_feats": 16, "scale": 2, "reduction": 4},
    "Swin2SR": {**_SQUARES, "embed_dim": 12, "upsampler": "pixelshuffle"},
    "SwiftSRGAN": {"num_channels": 16, "num_blocks": 2, "upscale_factor": 2},
}
"""Options of further architectures, as they come out of the drawing of random weights."""


def save(net: Any, path: Path, *, under: str | None = None, old: bool = False) -> Path:
    """Write a file, the state dict under a key where one is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = dict(net.state_dict())
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    else:
        torch.save({under: state} if under else state, path, _use_new_zipfile_serialization=not old)
    return path


def trained(model: Model, path: Path) -> Path:
    """Write a shipped network as its makers publish it: under `params_ema`, by their names."""
    layers = [layer for layer in read_graph(*weights_files(NETWORKS[model])) if layer.weights]
    if model == "video":
        names = [f"body.{at}" for at in range(len(layers))]
    else:
        blocks = (len(layers) - 6) // 15
        inside = [
            f"body.{block}.rdb{dense}.conv{conv}"
            for block in range(blocks)
            for dense in (1, 2, 3)
            for conv in (1, 2, 3, 4, 5)
        ]
        names = ["conv_first", *inside, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    state = {
        f"{name}.{part}": torch.from_numpy(np.array(values, np.float32))
        for name, layer in zip(names, layers, strict=True)
        for part, values in zip(("weight", "bias"), layer.weights, strict=False)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params_ema": state}, path)
    return path


def restoreformer() -> Any:
    """A restorer of faces of 512 px, with a hundredth of the weights that people's have."""
    return made(
        "RestoreFormer",
        n_embed=16,
        embed_dim=32,
        ch=32,
        ch_mult=(1, 1, 1, 1, 1, 1),
        num_res_blocks=1,
        z_channels=32,
        double_z=False,
        head_size=8,
    )
