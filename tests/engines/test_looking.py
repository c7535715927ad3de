"""Small pictures of what is drawn: latents as colours."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from safelight.engines.diffusers import looking
from safelight.engines.diffusers.looking import ColourMap, Looking, map_of
from safelight.progress import viewing


class MixingVae(torch.nn.Module):
    """Encodes eight by eight pixels as four mixtures of their mean colour."""

    mixing = torch.tensor([[2.0, -1, 0.5], [0, 1, 1], [-1, 0, 3], [0.2, 0.1, 0]])

    def __init__(self) -> None:
        super().__init__()
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.config = SimpleNamespace(scaling_factor=0.18, shift_factor=0.05)

    def encode(self, picture: torch.Tensor) -> SimpleNamespace:
        means = avg_pool2d(picture, 8)
        return SimpleNamespace(latents=torch.einsum("kc,nchw->nkhw", self.mixing, means))


def latents_of(picture: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    return (MixingVae().encode(values).latents - 0.05) * 0.18


def test_the_colours_are_those_of_the_picture(photo: np.ndarray):
    small = photo[::4, ::4]
    shown = ColourMap.of(MixingVae(), 8).colours(latents_of(small)[0]).numpy()
    means = small.reshape(16, 8, 16, 8, 3).mean((1, 3))
    assert np.abs(shown - means).max() <= 3
    noisy = latents_of(small) + 10 * torch.randn(1, 4, 16, 16, generator=torch.manual_seed(1))
    assert ColourMap.of(MixingVae(), 8).colours(noisy[0]).numpy().std() < 110


def test_pictures_are_shown_at_most_once_a_second_and_only_to_somebody(
    monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
):
    seen: list[bytes] = []
    pipeline = SimpleNamespace(vae=MixingVae(), vae_scale_factor=8)
    latents = latents_of(photo)
    look = Looking(512, 512)
    monkeypatch.setattr(looking, "SECONDS_BETWEEN", 0.0)
    for _ in range(4):
        look.step(pipeline, latents)
    assert not seen
    with viewing(seen.append):
        for _ in range(4):  # each is sent on its way at one step, and shown at the next
            look.step(pipeline, latents)
        monkeypatch.setattr(looking, "SECONDS_BETWEEN", 60.0)
        for _ in range(4):
            look.step(pipeline, latents)
    assert len(seen) == 2
    with Image.open(io.BytesIO(seen[0])) as opened:
        assert opened.size == (64, 64)


def test_a_model_whose_latents_are_of_no_known_kind_shows_nothing(photo: np.ndarray):
    seen: list[bytes] = []
    broken = SimpleNamespace(vae=torch.nn.Linear(1, 1), vae_scale_factor=8)
    assert map_of(broken) is None
    assert map_of(SimpleNamespace()) is None
    look = Looking(64, 64)
    look._last = -100.0
    with viewing(seen.append):
        for _ in range(3):
            look.step(SimpleNamespace(vae=MixingVae(), vae_scale_factor=8), torch.zeros(1, 2, 3))
    assert not seen
