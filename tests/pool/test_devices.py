import os
import stat

import pytest

from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.pool.devices import available_cores, find_devices, visible_devices

TOLD = "0, GPU-aaaa, 81559\n1, GPU-bbbb, 24576\n2, GPU-cccc, 24576\n"


def test_gpus_are_numbered_as_the_process_sees_them():
    found = visible_devices(TOLD, "2,GPU-aaaa")
    assert [gpu.name for gpu in found] == ["cuda:0", "cuda:1"]
    assert [dict(gpu.environment)["CUDA_VISIBLE_DEVICES"] for gpu in found] == [
        "GPU-cccc",
        "GPU-aaaa",
    ]
    assert [round(gpu.memory_gib) for gpu in found] == [24, 80]
    assert all(dict(gpu.environment)["SAFELIGHT_DEVICE"] == "cuda:0" for gpu in found)
    assert visible_devices(TOLD, "") == ()
    assert len(visible_devices(TOLD, None)) == 3


def test_cores_are_shared_between_processes(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = find_devices("cpu:2")
    assert [device.name for device in found] == ["cpu:0", "cpu:1"]
    threads = dict(found[0].environment)["OMP_NUM_THREADS"]
    assert int(threads) == max(1, available_cores() // 2)
    assert dict(found[0].environment)["CUDA_VISIBLE_DEVICES"] == ""


def test_the_driver_is_asked_and_a_missing_gpu_refused(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{TOLD}'\n".replace("\n0", "0"))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.name for gpu in find_devices()] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [gpu.name for gpu in find_devices("cuda:1")] == ["cuda:1"]
    with pytest.raises(DependencyMissingError, match=r"cuda:7.*3 GPUs"):
        find_devices("cuda:7")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert find_devices()[0].kind in ("cpu", "mps")


def test_no_process_at_all_is_refused():
    with pytest.raises(InvalidFieldValueError, match="cpu:0"):
        find_devices("cpu:0")
