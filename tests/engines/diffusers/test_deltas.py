"""Changes of weights against arithmetic written out one number at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.engines.diffusers.deltas import UnfitError, changed

SEEDS = st.integers(0, 2**16)
SIDES = st.integers(1, 6)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert np.allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS, SIDES, SIDES, SIDES, st.floats(0.25, 8), st.floats(-2, 2))
def test_a_lora_adds_alpha_by_rank_times_up_by_down(
    seed: int, out: int, into: int, rank: int, alpha: float, strength: float
):
    weight, up, down = (
        drawn(seed, out, into),
        drawn(seed + 1, out, rank),
        drawn(seed + 2, rank, into),
    )
    wanted = weight.numpy().copy()
    for o in range(out):
        for i in range(into):
            wanted[o, i] += (
                strength * alpha / rank * sum(float(up[o, r] * down[r, i]) for r in range(rank))
            )
    held = {"up": up, "down": down, "alpha": torch.tensor(alpha)}
    close(changed(held, weight, strength, {}), wanted)


def test_a_lora_of_a_convolution_is_the_two_convolutions_behind_each_other():
    picture = drawn(0, 1, 5, 9, 9)
    down, middle, up = drawn(1, 3, 5, 1, 1), drawn(2, 3, 3, 3, 3), drawn(3, 4, 3, 1, 1)
    for tensors, inner in (
        ({"down": drawn(4, 3, 5, 3, 3), "up": up}, None),
        ({"down": down, "mid": middle, "up": up}, middle),
    ):
        weight = changed(tensors, torch.zeros(4, 5, 3, 3), 1.0, {})
        through = torch.conv2d(picture, tensors["down"])
        if inner is not None:
            through = torch.conv2d(through, inner)
        wanted = torch.conv2d(through, up)
        close(torch.conv2d(picture, weight), wanted.numpy())


def test_a_loha_multiplies_two_loras_number_by_number():
    a, b, c, d = drawn(1, 4, 2), drawn(2, 2, 6), drawn(3, 4, 2), drawn(4, 2, 6)
    held = {
        "hada_w1_a": a,
        "hada_w1_b": b,
        "hada_w2_a": c,
        "hada_w2_b": d,
        "alpha": torch.tensor(1.0),
    }
    weight = drawn(5, 4, 6)
    wanted = weight.numpy() + 0.5 * (a.numpy() @ b.numpy()) * (c.numpy() @ d.numpy())
    close(changed(held, weight, 1.0, {}), wanted)


@pytest.mark.parametrize("whole", [True, False])
def test_a_lokr_is_a_kronecker_product_whose_alpha_counts_only_with_a_rank(whole: bool):
    first, weight = drawn(1, 2, 3), drawn(2, 8, 6)
    second = {"lokr_w2": drawn(3, 4, 2)}
    if not whole:
        second = {"lokr_w2_a": drawn(4, 4, 5), "lokr_w2_b": drawn(5, 5, 2)}
    other = second["lokr_w2"] if whole else second["lokr_w2_a"] @ second["lokr_w2_b"]
    wanted = weight.numpy() + np.kron(first.numpy(), other.numpy()) * (1.0 if whole else 2.0 / 5)
    held = {"lokr_w1": first, **second, "alpha": torch.tensor(2.0)}
    close(changed(held, weight, 1.0, {}), wanted)


def test_a_lokr_of_a_convolution_keeps_the_kernel():
    first, second = drawn(1, 2, 2), drawn(2, 3, 4, 3, 3)
    delta = changed({"lokr_w1": first, "lokr_w2": second}, torch.zeros(6, 8, 3, 3), 1.0, {})
    for o, i, k in ((0, 0, 0), (5, 7, 2), (4, 1, 1)):
        wanted = first[o // 3, i // 4] * second[o % 3, i % 4, k, 1]
        assert math.isclose(float(delta[o, i, k, 1]), float(wanted), rel_tol=1e-5)


@pytest.mark.parametrize("by_column", [True, False])
def test_a_dora_gives_every_column_or_row_the_length_it_learnt(by_column: bool):
    weight, up, down = drawn(1, 4, 6), drawn(2, 4, 2), drawn(3, 2, 6)
    magnitude = drawn(4, 1, 6).abs() if by_column else drawn(4, 4).abs()
    held = {"up": up, "down": down, "dora_scale": magnitude}
    found = changed(held, weight, 1.0, {})
    lengths = torch.linalg.vector_norm(found, dim=0 if by_column else 1)
    close(lengths, magnitude.flatten().numpy())
    together = weight + up @ down
    assert torch.allclose(  # and the direction that weight and change have together
        torch.nn.functional.normalize(found, dim=0 if by_column else 1),
        torch.nn.functional.normalize(together, dim=0 if by_column else 1),
        atol=1e-5,
    )
    half = changed(held, weight, 0.5, {})
    close(half, ((found + weight) / 2).numpy())


def test_ia3_scales_rows_or_columns_and_whole_differences_are_added():
    weight, vector = drawn(1, 4, 6), drawn(2, 6)
    on_input = changed({"weight": vector, "on_input": torch.tensor(1)}, weight, 0.5, {})
    close(on_input, weight.numpy() * (1 + 0.5 * vector.numpy()))
    rows = drawn(3, 4)
    on_output = changed({"weight": rows, "on_input": torch.tensor(0)}, weight, 1.0, {})
    close(on_output, weight.numpy() * (1 + rows.numpy()[:, None]))
    close(changed({"diff": weight}, weight, 2.0, {}), weight.numpy() * 3)


def test_what_peft_kept_in_the_metadata_counts_where_the_file_has_no_alpha():
    weight, up, down = torch.zeros(4, 6), drawn(2, 4, 4), drawn(3, 4, 6)
    product = (up @ down).numpy()
    close(changed({"up": up, "down": down}, weight, 1.0, {}), product)
    close(changed({"up": up, "down": down}, weight, 1.0, {"lora_alpha": 8}), product * 2)
    settled = {"lora_alpha": 8, "use_rslora": True}
    close(changed({"up": up, "down": down}, weight, 1.0, settled), product * 4)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"up": drawn(1, 4, 2)}, "down is missing"),
        ({"up": drawn(1, 4, 2), "down": drawn(1, 3, 6)}, "up is"),
        ({"up": drawn(1, 5, 2), "down": drawn(1, 2, 6)}, "it changes"),
        ({"weight": drawn(1, 4, 6)}, "on_input is missing"),
        ({"hada_w1_a": drawn(1, 4, 2), "hada_w1_b": drawn(1, 2, 6)}, "hada_w2_a"),
        ({"lokr_w1": drawn(1, 2, 3), "hada_t1": drawn(1, 2, 2)}, "hada_t1 has no place"),
        ({"alpha": torch.tensor(1.0)}, "alpha is no change"),
        ({"diff": drawn(1, 4, 6), "dora_scale": drawn(1, 5)}, "its magnitude is"),
    ],
)
def test_halves_and_other_shapes_are_told_by_name(held: dict[str, torch.Tensor], said: str):
    with pytest.raises(UnfitError, match=said):
        changed(held, drawn(0, 4, 6), 1.0, {})
