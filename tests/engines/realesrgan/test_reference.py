"""The engines against the networks as their papers describe them, and tiles against none.

RRDBNet: Wang et al. 2018, arXiv:1809.00219, and 2021, arXiv:2107.10833; the compact network of
version 0.3 is the latter's with plain convolutions and one enlargement at the end. Of the weights
files only the convolutions and slopes are taken, in their order; how they are connected is written
out here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, interpolate, leaky_relu, pixel_shuffle, prelu

from safelight.engines.realesrgan.engine import NETWORKS, Model, open_enlarger, weights_files
from safelight.engines.realesrgan.ncnn_graph import read_graph

BLOCKS = {"photo": 23, "anime": 6}
MODELS: list[Model] = ["photo", "anime", "video"]
Tensor = torch.Tensor
T = TypeVar("T")


def groups(of: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    if len(of) % size:
        raise ValueError(f"{len(of)} do not divide into groups of {size}")
    return (of[start : start + size] for start in range(0, len(of), size))


def stored(model: Model) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Kernels with biases, and slopes, in the order of the file."""
    layers = read_graph(*weights_files(NETWORKS[model]))
    held = [(layer.kind, [torch.from_numpy(w.copy()) for w in layer.weights]) for layer in layers]
    kernels = [(w[0], w[1]) for kind, w in held if kind == "Convolution"]
    return kernels, [w[0] for kind, w in held if kind == "PReLU"]


def dense_block(x: Tensor, kernels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Five convolutions, each of which sees all before it; a fifth of the result is added."""
    seen = [x]
    for kernel, bias in kernels[:4]:
        seen.append(leaky_relu(conv2d(torch.cat(seen, 1), kernel, bias, padding=1), 0.2))
    return x + 0.2 * conv2d(torch.cat(seen, 1), *kernels[4], padding=1)


def residual_in_residual(x: Tensor, model: Model) -> Tensor:
    (first, *rest), _ = stored(model)
    trunk, (body, *tail) = rest[: 15 * BLOCKS[model]], rest[15 * BLOCKS[model] :]
    features = deep = conv2d(x, *first, padding=1)
    for three in groups(trunk, 15):
        inner = deep
        for five in groups(three, 5):
            inner = dense_block(inner, five)
        deep = deep + 0.2 * inner
    deep = features + conv2d(deep, *body, padding=1)
    for enlarging in tail[:2]:
        twice = interpolate(deep, scale_factor=2, mode="nearest")
        deep = leaky_relu(conv2d(twice, *enlarging, padding=1), 0.2)
    return conv2d(leaky_relu(conv2d(deep, *tail[2], padding=1), 0.2), *tail[3], padding=1)


def compact(x: Tensor) -> Tensor:
    kernels, slopes = stored("video")
    deep = x
    for kernel, slope in zip(kernels[:-1], slopes, strict=True):
        deep = prelu(conv2d(deep, *kernel, padding=1), slope)
    made = pixel_shuffle(conv2d(deep, *kernels[-1], padding=1), 4)
    return made + interpolate(x, scale_factor=4, mode="nearest")


def reference(picture: np.ndarray, model: Model, factor: int) -> np.ndarray:
    """(H, W, 3) uint8 to (factor H, factor W, 3) levels that are not rounded."""
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        native = compact(x) if model == "video" else residual_in_residual(x, model)
    height, width = picture.shape[:2]
    # by area: each of the input's pixels became 4x4, which are averaged to factor x factor
    fine = native[0].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    parts = fine.reshape(3, height * factor, 4, width * factor, 4)
    return np.clip(parts.mean((2, 4)).permute(1, 2, 0).numpy() * 255, 0, 255)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (19, 26)])
@pytest.mark.parametrize("model", MODELS)
def test_the_engine_is_the_network_of_the_paper(
    photo: np.ndarray, model: Model, shape: tuple[int, int]
):
    picture = np.ascontiguousarray(photo[100 : 100 + shape[0], 200 : 200 + shape[1]])
    for factor in (2, 3, 4) if model == "video" else (4,):
        made = open_enlarger(model, factor, 64).enlarge(picture)
        wanted = reference(picture, model, factor)
        assert made.shape == wanted.shape
        assert np.abs(made - wanted).max() < 0.51  # what rounding alone leaves


def test_a_network_put_together_in_another_way_shows(photo: np.ndarray, monkeypatch: Any):
    picture = np.ascontiguousarray(photo[100:116, 200:216])
    monkeypatch.setitem(BLOCKS, "anime", 5)
    with pytest.raises((RuntimeError, ValueError)):
        reference(picture, "anime", 4)
    monkeypatch.undo()
    made = open_enlarger("anime", 4, 64).enlarge(picture)
    assert np.abs(made - reference(picture, "photo", 4)).max() > 1


NEAR = 16
"""Input px around a cut between tiles within which the network's reach shows."""
FLIPPED = 2e-4
"""Part of the px elsewhere whose last rounding falls the other way: sums in another order."""


@pytest.mark.parametrize("model", [pytest.param("photo", marks=pytest.mark.soak), "anime", "video"])
def test_tiles_differ_from_none_by_rounding_inside_and_one_level_at_their_edges(
    photo: np.ndarray, model: Model
):
    picture = np.ascontiguousarray(photo[140:172, 332:508])
    height, width = picture.shape[:2]
    enlarger = open_enlarger(model, 4, tile=88)
    whole = enlarger.enlarge_window(picture).astype(int)
    off = np.abs(enlarger.enlarge(picture) - whole).max(axis=2)
    far = np.abs(np.arange(width * 4) / 4 - width / 2) > NEAR
    assert off.shape == (height * 4, width * 4)
    assert off.max() <= 1
    assert (off[:, far] > 0).mean() < FLIPPED
    assert (off > 0).mean() < 0.002
