"""Sizes of buckets, and files whose bytes depend on their content alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load

from safelight.engines.diffusers.training.buckets import bucket_of, fitted
from safelight.engines.diffusers.training.chance import derived
from safelight.engines.diffusers.training.tensor_files import tensor_bytes
from safelight.engines.training import DatasetOptions
from tests.served import CHECKOUT

USUAL = DatasetOptions(resolution=512)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1000, 1000), (512, 512)),
        ((3000, 2000), (576, 384)),
        ((2000, 3000), (384, 576)),
        ((4000, 1000), (1024, 256)),
        ((100, 100), (512, 512)),
    ],
)
def test_a_picture_gets_the_size_nearest_to_its_own(size, bucket):
    assert bucket_of(*size, USUAL, 512, 8) == bucket


def test_small_pictures_stay_small_where_that_is_asked():
    options = DatasetOptions(resolution=512, bucket_no_upscale=True, min_bucket_reso=64)
    assert bucket_of(200, 200, options, 512, 8) == (192, 192)
    squares = DatasetOptions(enable_bucket=False)
    assert bucket_of(3000, 1000, squares, 64, 16) == (64, 64)


@given(st.integers(8, 5000), st.integers(8, 5000), st.sampled_from([64, 512, 1000]))
def test_every_bucket_keeps_to_the_limits(width: int, height: int, side: int):
    options = DatasetOptions(resolution=side)
    wide, high = bucket_of(width, height, options, side, 8)
    assert wide * high <= side**2
    assert wide % 8 == high % 8 == 0
    assert min(wide, high) >= min(side // 2, 64) // 8 * 8
    assert max(wide, high) <= side * 2


def test_a_picture_covers_its_bucket():
    picture = np.zeros((37, 91, 3), np.uint8)
    picture[:, 40:50] = 255
    covered = fitted(picture, 64, 64)
    assert covered.shape == (64, 64, 3)
    assert covered[:, 32].mean() > 200  # the middle stays the middle
    assert fitted(covered, 64, 64) is covered


def test_files_are_read_by_the_library_and_equal_content_is_equal_bytes():
    tensors = {
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a": torch.ones(3, dtype=torch.bfloat16),
        "none": torch.zeros(0),
        "n": torch.tensor(4.0),
    }
    told = {f"key{at}": "ä" * at for at in range(9)}
    content = tensor_bytes(tensors, told)
    back = load(content)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert tensor_bytes(dict(reversed(tensors.items())), dict(reversed(told.items()))) == content
    assert (
        json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"] == told
    )


@pytest.mark.slow
def test_other_processes_write_the_same(tmp_path: Path):
    code = (
        "import sys, torch; from pathlib import Path; "
        "from safelight.engines.diffusers.training.tensor_files import write_tensors; "
        "write_tensors(Path(sys.argv[1]), {'a': torch.ones(2)}, {k: k for k in 'abcdefgh'})"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "theirs")]
    subprocess.run(words, cwd=CHECKOUT, check=True)
    ours = tensor_bytes({"a": torch.ones(2)}, {key: key for key in "abcdefgh"})
    assert (tmp_path / "theirs").read_bytes() == ours
    with safe_open(str(tmp_path / "theirs"), "pt") as file:
        assert file.metadata()["h"] == "h"


def test_chance_depends_on_seed_and_place():
    assert derived(1, "noise", 2, 3) == derived(1, "noise", 2, 3)
    several = {
        derived(s, n, a, b) for s in (1, 2) for n in ("x", "y") for a in (1, 2) for b in (1, 2)
    }
    assert len(several) == 16
    assert derived(1, 2, 3) != derived(1, 23)
