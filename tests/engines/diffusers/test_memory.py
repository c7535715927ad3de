"""What torch adds up on a CPU does not depend on where in memory a tensor lies."""

import subprocess
import sys

import pytest

ADDED_UP = """
import safelight.engines.machine.device
import torch

torch.set_num_threads(1)
row, weights = torch.randn(1, 256), torch.randn(256, 256)
room = torch.empty(weights.numel() + 64)
first = -(room.data_ptr() // 4) % 16
wanted = torch.nn.functional.linear(row, weights)
for off in range(16):
    moved = room[first + off : first + off + weights.numel()].view(256, 256).copy_(weights)
    assert torch.equal(torch.nn.functional.linear(row, moved), wanted), off
"""


@pytest.mark.slow
def test_a_row_times_weights_is_the_same_wherever_they_lie():
    subprocess.run([sys.executable, "-c", ADDED_UP], check=True)
