"""Which device and number format models get."""

import subprocess
import sys
from ctypes.util import find_library

import pytest
import torch

from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.errors import DependencyMissingError
from safelight.settings import settings


@pytest.fixture(autouse=True)
def _fresh_settings():
    settings.cache_clear()
    yield
    settings.cache_clear()


def asked_anew(question: str) -> list[str]:
    """What a new process answers, and whether it imported torch for that."""
    code = (
        "import sys; from safelight.engines.machine.device import device_class, resolve_device;"
        f"print({question}, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_cpu_is_always_there():
    assert resolve_device("cpu") == "cpu"


def test_auto_takes_what_there_is():
    cuda, metal = torch.cuda.is_available(), torch.backends.mps.is_available()
    assert resolve_device("auto") == ("cuda:0" if cuda else "mps" if metal else "cpu")


@pytest.mark.slow
def test_a_build_for_the_cpu_alone_is_not_imported_to_find_a_device():
    device, imported = asked_anew("resolve_device('auto')")
    assert device == resolve_device("auto")
    assert (imported == "True") is not torch.__version__.endswith("+cpu")


def test_the_class_is_known_without_torch_where_no_driver_is():
    found, imported = asked_anew("device_class()")
    assert found == resolve_device().partition(":")[0]
    if sys.platform == "linux" and not find_library("cuda"):
        assert (found, imported) == ("cpu", "False")


def test_a_device_that_is_not_there_is_refused():
    there = torch.cuda.device_count()
    with pytest.raises(DependencyMissingError, match=f"{there} CUDA devices") as refused:
        resolve_device(f"cuda:{there}")
    assert "SAFELIGHT_DEVICE" in refused.value.remedy
    if not torch.backends.mps.is_available():
        with pytest.raises(DependencyMissingError, match="Metal"):
            resolve_device("mps")


def test_the_class_has_no_index(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    assert device_class() == "cpu"


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "auto", torch.float32),
        ("cuda:0", "auto", torch.float16),
        ("mps", "auto", torch.float16),
        ("cpu", "fp16", torch.float16),
        ("cpu", "bf16", torch.bfloat16),
        ("cuda:1", "fp32", torch.float32),
    ],
)
def test_number_formats(device: str, precision: str, expected: torch.dtype):
    assert torch_dtype(device, precision) is expected
