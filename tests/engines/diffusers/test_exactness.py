"""Batches on the CPU whose pictures are what each is alone."""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from examples.untrained import build_untrained
from safelight.engines.diffusers.batch_sizes import BatchSizes
from safelight.engines.diffusers.exactness import as_alone
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusers.together import PIXELS_ON_CPU
from safelight.engines.diffusion import Drawing, Drawn, Over, draw, draw_together
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint

SIDE = 64
QUICK = ((1, "starter", 7), (2, "tiny", 2))
"""Threads, model and size of batches that every run of the tests tries."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_untrained(folder / "tiny")
    shutil.copytree("weights/starter", folder / "starter")
    return folder


@pytest.fixture(autouse=True)
def _settings(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()


@pytest.fixture
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def wanted(count: int, **changes: object) -> list[Drawing]:
    fields: dict[str, object] = {"model": "tiny", "steps": 2, **changes}
    card = find_checkpoint(str(fields.pop("model")))
    words = ("a red cat", "a photo of the blue dog on grass", "a flower")
    return [
        Drawing(card=card, prompt=words[n % 3], negative_prompt="grey" * (n % 2), seed=n, **fields)
        for n in range(count)
    ]


def drawn_at(
    size: int, drawings: list[Drawing], monkeypatch: pytest.MonkeyPatch, side: int = SIDE
) -> list[Drawn]:
    """Drawn in batches of one size, the last one smaller."""
    sizes = BatchSizes(f"{size} at a time", size)
    sizes.did_not_fit(2 * size)
    monkeypatch.setattr("safelight.engines.diffusers.together.batch_sizes", lambda *_, **__: sizes)
    received: list[Drawn] = []
    draw_together(drawings, side, side, lambda _, drawn: received.append(drawn))
    return received


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "model", "size"),
    [
        *QUICK,
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in product((1, 2), ("starter", "tiny"), (2, 7))
            if case not in QUICK
        ),
    ],
    indirect=["threads"],
)
def test_each_picture_has_its_own_bytes(
    threads: int, model: str, size: int, monkeypatch: pytest.MonkeyPatch
):
    drawings = wanted(9, model=model)
    received = drawn_at(size, drawings, monkeypatch)
    assert {drawn.batch for drawn in received} == {size, 9 % size}
    for drawn, drawing in zip(received, drawings, strict=True):
        assert np.array_equal(drawn.pixels, draw(drawing, SIDE, SIDE)[0])


def redrawn_at(
    size: int, drawings: list[Drawing], over: list[Over], monkeypatch: pytest.MonkeyPatch
) -> list[Drawn]:
    """As `drawn_at`, over pictures."""
    sizes = BatchSizes(f"{size} at a time over pictures", size)
    sizes.did_not_fit(2 * size)
    monkeypatch.setattr("safelight.engines.diffusers.together.batch_sizes", lambda *_, **__: sizes)
    received: list[Drawn] = []
    height, width = over[0].image.shape[:2]
    draw_together(drawings, width, height, lambda _, drawn: received.append(drawn), over=over)
    return received


def painted(count: int, *, masked: bool, strength: float = 0.6) -> list[Over]:
    chance = np.random.default_rng(3)
    pictures = chance.integers(0, 256, (count, SIDE, SIDE + 32, 3), np.uint8)
    holes = np.zeros((count, SIDE, SIDE + 32), np.uint8)
    for n, hole in enumerate(holes):
        hole[8 * (n % 3) : 40, 16:64] = 255
    return [
        Over(picture, strength, hole if masked else None)
        for picture, hole in zip(pictures, holes, strict=True)
    ]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("threads", "model", "size"),
    [
        pytest.param(1, "starter", 3, marks=pytest.mark.slow),
        (2, "tiny", 2),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in product((1, 2), ("starter", "tiny"), (2, 7))
            if case != (2, "tiny", 2)
        ),
    ],
    indirect=["threads"],
)
def test_each_picture_drawn_over_has_its_own_bytes(
    threads: int, model: str, size: int, masked: bool, monkeypatch: pytest.MonkeyPatch
):
    drawings, over = wanted(7, model=model, steps=4), painted(7, masked=masked)
    received = redrawn_at(size, drawings, over, monkeypatch)
    assert {drawn.batch for drawn in received} == {size, 7 % size} - {0}
    for drawn, drawing, one in zip(received, drawings, over, strict=True):
        assert np.array_equal(drawn.pixels, one.alone(drawing)[0])
    several = {drawn.pixels.tobytes() for drawn in received}
    assert len(several) == 7


def test_only_pictures_of_one_size_strength_and_way_are_drawn_over_together():
    drawings = wanted(2)
    first, second = painted(2, masked=False)
    masked = painted(1, masked=True)[0]
    taller = Over(np.zeros((SIDE + 8, SIDE + 32, 3), np.uint8), first.strength)
    for other in (taller, Over(second.image, 0.9), masked):
        with pytest.raises(ValueError, match="differs in more"):
            draw_together(drawings, SIDE + 32, SIDE, lambda *_: None, over=[first, other])
    with pytest.raises(ValueError, match="differs in more"):
        draw_together(drawings, SIDE + 32, SIDE, lambda *_: None, over=[first])


def test_plain_batches_would_differ(monkeypatch: pytest.MonkeyPatch):
    """Or there would be nothing to take care of."""
    drawings = wanted(8, model="starter")
    view = model_of(drawings[0].card).view("AutoPipelineForText2Image", None, None)
    latents = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.randn(16, 77, view.unet.config.cross_attention_dim)
    call = {"encoder_hidden_states": words, "return_dict": False}
    with torch.inference_mode():
        (plain,) = view.unet(latents, 500, **call)
        with as_alone(model_of(drawings[0].card), view, drawings[0], 8):
            (exact,) = view.unet(latents, 500, **call)
        rows = [3, 11]
        (alone,) = view.unet(
            latents[rows], 500, encoder_hidden_states=words[rows], return_dict=False
        )
    assert torch.equal(exact[rows], alone)
    assert not torch.equal(plain[rows], alone)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [4, pytest.param(60, marks=pytest.mark.soak)])
def test_it_holds_for_samplers_guidance_and_sizes(monkeypatch: pytest.MonkeyPatch, examples: int):
    @hypothesis_settings(max_examples=examples, derandomize=True)
    @given(
        scheduler=st.sampled_from([None, "euler_a", "dpmpp_2m_karras", "ddim", "unipc"]),
        guidance=st.sampled_from([1.0, 4.5]),
        count=st.integers(2, 6),
        side=st.sampled_from([64, 96]),
    )
    def holds(scheduler: str | None, guidance: float, count: int, side: int) -> None:
        drawings = wanted(count, scheduler=scheduler, guidance_scale=guidance)
        received = drawn_at(count, drawings, monkeypatch, side)
        assert {drawn.batch for drawn in received} == {count}
        for drawn, drawing in zip(received, drawings, strict=True):
            assert np.array_equal(drawn.pixels, draw(drawing, side, side)[0])

    holds()


@pytest.mark.slow
def test_a_network_that_cannot_is_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch):
    drawings = wanted(5)
    network = model_of(drawings[0].card).pipeline.unet
    model_of(drawings[0].card).apart.clear()

    def mixes_its_rows(_module: object, _inputs: object, made: object) -> object:
        (tensor,) = made if isinstance(made, tuple) else (made,)
        return (tensor + 1e-3 * tensor.mean(),)

    hook = network.register_forward_hook(mixes_its_rows)
    try:
        received = drawn_at(4, drawings, monkeypatch)
        assert [drawn.batch for drawn in received] == [1] * 5
        for drawn, drawing in zip(received, drawings, strict=True):
            assert np.array_equal(drawn.pixels, draw(drawing, SIDE, SIDE)[0])
    finally:
        hook.remove()
        model_of(drawings[0].card).apart.clear()


def test_large_pictures_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("safelight.engines.diffusers.together.PIXELS_ON_CPU", SIDE * SIDE * 2 - 1)
    received: list[Drawn] = []
    draw_together(wanted(4, steps=1), SIDE, SIDE, lambda _, drawn: received.append(drawn))
    assert [drawn.batch for drawn in received] == [1] * 4
    assert PIXELS_ON_CPU >= 512 * 512
