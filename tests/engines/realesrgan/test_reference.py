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

from safelight.engines.realesrgan.engine import (
    NETWORKS,
    Enlarger,
    Model,
    TorchRunner,
    open_enlarger,
    weights_files,
)
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
"""Input px around a cut between tiles within which the networks' reach shows."""
FLIPPED = 2e-4
"""Part of the px elsewhere whose last rounding falls the other way: sums in another order."""
PASSED_ON = 4
"""Input px by which one convolution of ncnn passes on how another px was rounded: its squares."""


def tiled_and_whole(enlarger: Enlarger, picture: np.ndarray) -> np.ndarray:
    """By how many levels each px of a picture cut in two is off one that is not, (4 H, 4 W)."""
    whole = enlarger.enlarge_window(picture).astype(int)
    return np.abs(enlarger.enlarge(picture) - whole).max(axis=2)


def from_the_cut(width: int) -> np.ndarray:
    """Input px between each column of the enlarged picture and the middle of it."""
    return np.abs(np.arange(width * 4) / 4 - width / 2)


@pytest.mark.parametrize(
    ("model", "looks"),
    [
        ("video", 18),
        pytest.param("anime", 92, marks=pytest.mark.slow),
        pytest.param("photo", 347, marks=pytest.mark.soak),
    ],
)
def test_tiles_that_see_all_a_network_looks_at_equal_none(
    photo: np.ndarray, model: Model, looks: int
):
    """With sums in one order everywhere, to the bit: one px for each layer at the source's size,
    and two for those behind."""
    wide = np.concatenate([photo, photo[:, ::-1]], axis=1)
    picture = np.ascontiguousarray(wide[140:156, : 2 * looks + 80])
    width = picture.shape[1] // 2
    assert width + looks < picture.shape[1]
    enlarger = Enlarger(
        TorchRunner(NETWORKS[model], "cpu", torch.float32), NETWORKS[model], 4, width, 0
    )
    enlarger.reach = looks
    assert tiled_and_whole(enlarger, picture).max() == 0
    enlarger.reach = 6
    assert tiled_and_whole(enlarger, picture).max() > 0


def test_the_video_network_in_tiles_equals_none_away_from_their_edges(photo: np.ndarray):
    """Away is where nothing of a window's edge comes, by sight or by rounding."""
    network = NETWORKS["video"]
    layers = len(stored("video")[0])
    away = (layers + 1) * PASSED_ON - network.reach
    assert away == 56
    for rows in (slice(100, 132), slice(300, 333)):
        picture = np.ascontiguousarray(photo[rows, 17:465])
        off = tiled_and_whole(open_enlarger("video", 4, tile=224), picture)
        assert off[:, from_the_cut(448) > away].max() == 0
        assert off.max() <= 1
    standing = np.ascontiguousarray(photo[17:465, 100:132])
    off = tiled_and_whole(open_enlarger("video", 4, tile=224), standing)
    assert off[from_the_cut(448) > away].max() == 0


@pytest.mark.parametrize("model", [pytest.param("photo", marks=pytest.mark.soak), "anime", "video"])
def test_tiles_differ_from_none_by_rounding_inside_and_one_level_at_their_edges(
    photo: np.ndarray, model: Model
):
    picture = np.ascontiguousarray(photo[140:172, 332:508])
    height, width = picture.shape[:2]
    off = tiled_and_whole(open_enlarger(model, 4, tile=88), picture)
    assert off.shape == (height * 4, width * 4)
    assert off.max() <= 1
    assert (off[:, from_the_cut(width) > NEAR] > 0).mean() < FLIPPED
    assert (off > 0).mean() < 0.002
