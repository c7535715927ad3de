"""What stages cost is measured whatever else the process is about."""

import sys
from types import ModuleType

import pytest

from safelight.engines.machine.measure import measured


@pytest.mark.parametrize("there", [(), ("cuda",)])
def test_a_stage_is_measured_while_another_thread_imports_torch(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...]
):
    half = ModuleType("torch")  # what others find before its import has ended
    for name in there:
        setattr(half, name, ModuleType(f"torch.{name}"))
    monkeypatch.setitem(sys.modules, "torch", half)
    with measured() as cost:
        pass
    assert cost.seconds >= 0
    assert cost.gpu_peak_bytes == 0
