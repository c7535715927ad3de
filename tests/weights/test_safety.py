"""Weights files are judged by their content, before anything loads them."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safelight.errors import InvalidMediaError, UnsafePickleError
from safelight.weights.safety import check_weights

STATE = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(4, dtype=torch.float16))


class Evil:
    """Would make a file named `harmed` when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.folder / 'harmed'}",)


def safetensors_of(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".bin"])
@pytest.mark.parametrize("archive", [True, False])
def test_state_dicts_pass(tmp_path: Path, suffix: str, archive: bool):
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=archive)
    check_weights(path)
    assert torch.load(path, weights_only=True)["state_dict"]["a"].sum() == 15


def test_safetensors_pass(tmp_path: Path):
    save_file(dict(STATE), tmp_path / "model.safetensors", {"format": "pt"})
    check_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("length", [128, 640, 0x0580])
def test_safetensors_that_start_like_a_pickle_pass(tmp_path: Path, length: int):
    header = b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}'.ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + b"1234")
    assert path.read_bytes()[:1] == pickle.PROTO
    check_weights(path)
    path.rename(tmp_path / "model.ckpt")  # torch would read this one as a pickle
    with pytest.raises(InvalidMediaError):
        check_weights(tmp_path / "model.ckpt")


def test_pickles_that_run_code_are_refused(tmp_path: Path):
    evil = Evil(tmp_path)
    cases = {
        "archive.ckpt": lambda path: torch.save({"a": evil}, path),
        "legacy.ckpt": lambda path: torch.save(
            {"a": evil}, path, _use_new_zipfile_serialization=False
        ),
        "plain.pth": lambda path: path.write_bytes(pickle.dumps(evil, 2)),
        "newest.pth": lambda path: path.write_bytes(pickle.dumps(evil, 5)),
        "archive.safetensors": lambda path: torch.save(STATE, path),
        "plain.safetensors": lambda path: path.write_bytes(pickle.dumps(1, 2)),
    }
    for name, make in cases.items():
        make(tmp_path / name)
        with pytest.raises(UnsafePickleError, match=r"could run code|expected safetensors"):
            check_weights(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_names_hidden_in_the_memo_are_refused(tmp_path: Path):
    # the last two strings read are allowed ones, the two that are used come out of the memo
    hidden = (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94"
        b"00h\x00h\x01\x93\x8c\x04true\x85R."
    )
    (tmp_path / "memo.ckpt").write_bytes(hidden)
    with pytest.raises(UnsafePickleError, match="STACK_GLOBAL"):
        check_weights(tmp_path / "memo.ckpt")


def test_an_archive_glued_behind_a_pickle_hides_nothing(tmp_path: Path):
    torch.save(STATE, tmp_path / "good.ckpt")
    glued = pickle.dumps(Evil(tmp_path), 2) + (tmp_path / "good.ckpt").read_bytes()
    (tmp_path / "glued.ckpt").write_bytes(glued)
    assert zipfile.is_zipfile(tmp_path / "glued.ckpt")
    with pytest.raises(UnsafePickleError, match="system"):
        check_weights(tmp_path / "glued.ckpt")


def test_two_entries_of_one_name_are_refused(tmp_path: Path):
    path = tmp_path / "twice.ckpt"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(tmp_path), 2))
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(UnsafePickleError, match="two entries"):
        check_weights(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"a text that calls itself a model",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 4) + b"{no}",
        safetensors_of([1]),
        safetensors_of({"a": 1}),
        safetensors_of({"a": {}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_of({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"1234"),
        safetensors_of({"a": {"dtype": "X", "shape": [0], "data_offsets": [0, 0]}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        safetensors_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
        b"PK\x03\x04 no archive",
        b"\x80\x02 no pickle",
        b"\x80\x02",
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes):
    for name in ("model.safetensors", "model.ckpt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidMediaError) as refused:
            check_weights(tmp_path / name)
        assert refused.value.remedy


def test_overlapping_tensors_are_refused(tmp_path: Path):
    one = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    (tmp_path / "m.safetensors").write_bytes(safetensors_of({"a": one, "b": one}, b"1234"))
    with pytest.raises(InvalidMediaError, match="starts at byte 0, expected 4"):
        check_weights(tmp_path / "m.safetensors")


def test_every_part_of_a_folder_counts(tmp_path: Path):
    (tmp_path / "unet").mkdir()
    save_file(dict(STATE), tmp_path / "unet" / "good.safetensors")
    (tmp_path / "config.json").write_text("{}")
    check_weights(tmp_path)
    torch.save({"a": Evil(tmp_path)}, tmp_path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsafePickleError, match="system"):
        check_weights(tmp_path)


def test_a_file_that_changed_is_looked_at_again(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file(dict(STATE), path)
    check_weights(path)
    path.write_bytes(b"broken")
    with pytest.raises(InvalidMediaError):
        check_weights(path)
