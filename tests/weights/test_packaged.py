"""Weights inside installed packages are the known ones, or are not loaded."""

import os
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from safelight.engines import mtcnn
from safelight.engines.palms import engine as palms
from safelight.engines.realesrgan import network
from safelight.engines.realesrgan.ncnn_backend import NcnnRunner
from safelight.engines.realesrgan.network import NETWORKS, weights_files
from safelight.engines.realesrgan.torch_backend import TorchRunner
from safelight.engines.rife import engine as rife
from safelight.engines.rife.network import Network as RifeNetwork
from safelight.engines.silhouettes import engine as silhouettes
from safelight.errors import ChecksumMismatchError
from safelight.weights.packaged import KNOWN, packaged_copy, packaged_sha256


def test_the_installed_files_are_the_known_ones():
    used = [rife.weights_path(), *mtcnn.weights_paths(), palms.FILE, silhouettes.FILE]
    used += [file for network in NETWORKS.values() for file in weights_files(network)]
    assert {path.name for path in used} == set(KNOWN)
    assert [packaged_sha256(path) for path in used] == [KNOWN[path.name] for path in used]


def test_a_changed_file_is_refused_whatever_its_time(tmp_path: Path):
    source = mtcnn.weights_paths()[0]
    copy = Path(shutil.copy2(source, tmp_path / source.name))
    assert packaged_sha256(copy) == KNOWN[source.name]
    before = copy.stat()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChecksumMismatchError, match=source.name):
        packaged_sha256(copy)


def test_no_engine_loads_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = rife.weights_path()
    changed = tmp_path / source.name
    changed.write_bytes(source.read_bytes() + b"\0")
    monkeypatch.setattr(rife, "weights_path", lambda: changed)
    with pytest.raises(ChecksumMismatchError):
        rife.Rife()


def other_weights(source: Path, target: Path) -> None:
    """A file like this one with one value changed, so that a library loads it without a word."""
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)


def swapped_after_the_look(where: str) -> Callable[[Path], str]:
    """`packaged_sha256`, and then other files lie under the same names."""

    def look(path: Path) -> str:
        found = packaged_sha256(path)
        if path.name.startswith(where):
            other_weights(path, path.with_name("other"))
            path.with_name("other").replace(path)
        return found

    return look


LOADS: dict[str, Callable[[Path], object]] = {
    "flownet": lambda folder: RifeNetwork.load(folder / "flownet.pkl", "cpu", torch.float32),
    "onet": lambda folder: mtcnn.Networks.load(
        tuple(folder / name for name in mtcnn.WEIGHTS_FILES), "cpu"
    ),
    "realesr-animevideov3-x4.bin": lambda _: NcnnRunner(NETWORKS["video"]),
    "realesr-animevideov3-x4.param": lambda _: NcnnRunner(NETWORKS["video"]),
    "realesrgan-x4plus-anime.bin": lambda _: TorchRunner(NETWORKS["anime"], "cpu", torch.float32),
}


@pytest.mark.parametrize("name", LOADS)
def test_a_file_put_in_its_place_after_the_look_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    files = [rife.weights_path(), *mtcnn.weights_paths()]
    files += [file for network in NETWORKS.values() for file in weights_files(network)]
    (tmp_path / "models").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / file.name)
        shutil.copy(file, tmp_path / "models" / file.name)
    spec = ModuleSpec("weights", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(network, "find_spec", lambda _: spec)
    load = LOADS[name]
    load(tmp_path)  # as they are
    monkeypatch.setattr(network, "packaged_sha256", swapped_after_the_look(name))
    if not name.startswith("real"):
        swapped_after_the_look(name)(next(tmp_path.glob(f"{name}*")))
    with pytest.raises(ChecksumMismatchError, match=name):
        load(tmp_path)


def test_the_copy_that_is_loaded_is_nobody_elses(tmp_path: Path):
    source = mtcnn.weights_paths()[0]
    with packaged_copy(source) as copy:
        assert copy.read_bytes() == source.read_bytes()
        assert copy.parent.stat().st_mode & 0o077 == 0
    assert not copy.parent.exists()


def test_an_unknown_file_is_refused(tmp_path: Path):
    (tmp_path / "other.pkl").write_bytes(b"x")
    with pytest.raises(ChecksumMismatchError):
        packaged_sha256(tmp_path / "other.pkl")
