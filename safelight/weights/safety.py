"""Looks into weights files before anything loads them: no pickle that could run code passes."""

import json
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, cast

from safelight.errors import InvalidMediaError, UnsafePickleError

LARGEST_HEADER = 100 * 2**20
"""Bytes; the limit the safetensors format sets for its header."""
LARGEST_PICKLE = 256 * 2**20
"""Bytes of a pickle inside an archive; the tensors lie beside it, so real ones are far smaller."""
WEIGHTS_FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".pkl")
"""Files that a library opens as weights; single models and parts of diffusers folders."""
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_LEGACY_PICKLES = 5
"""torch's oldest format: magic number, version, system, the object, its storage keys."""
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch.nn.parameter Parameter",
        "torch Size",
        "torch device",
        "torch.storage UntypedStorage",
        *(f"torch {kind}Storage" for kind in _STORAGES),
        *(f"torch {kind}" for kind in ("float32", "float16", "bfloat16", "float64", "int64")),
        "_codecs encode",
    }
)
"""What a plain state dict refers to; anything else could run code."""
_NAMED_ON_THE_STACK = frozenset({"STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "OBJ", "NEWOBJ_EX"})
"""Opcodes whose target no scan can tell for sure; torch itself never writes them."""


def check_weights(path: Path) -> None:
    """Refuse weights that are damaged, or whose pickle refers to anything but tensors.

    The content decides, not the extension. A file that did not change is looked at once.

    Args:
        path: a single file, or a folder whose weights files are all looked at.

    Raises:
        UnsafePickleError: a pickle that could run code, or a pickle that calls itself safetensors.
        InvalidMediaError: neither safetensors nor a torch checkpoint, or damaged.
    """
    held = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in held:
        if file == path or (file.suffix.lower() in WEIGHTS_FILES and file.is_file()):
            known = file.stat()
            _check(file, known.st_size, known.st_mtime_ns)


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Names of the tensors with dtype, shape and data_offsets; reads nothing else.

    Raises:
        InvalidMediaError: no safetensors file, or damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8) or start[8:] != b"{":
            raise InvalidMediaError(
                f"{path.name} ({size} bytes) has no safetensors header", "download the file again"
            )
        file.seek(8)
        try:
            header: object = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise InvalidMediaError(
                f"{path.name} has a damaged safetensors header", "download the file again"
            ) from error
    tensors = {k: v for k, v in cast("dict[str, object]", header).items() if k != "__metadata__"}
    if not all(isinstance(tensor, dict) for tensor in tensors.values()):
        raise InvalidMediaError(
            f"{path.name} has a safetensors header that does not describe tensors",
            "download the file again",
        )
    return cast("dict[str, dict[str, object]]", tensors)


@lru_cache(maxsize=1024)
def _check(path: Path, size: int, changed: int) -> None:
    del changed  # part of the key
    with path.open("rb") as file:
        start = file.read(4)
    # what torch would do with it: an archive by its first bytes, else a row of pickles
    pickled = start == _ZIP or start[:1] == _PICKLE
    named = path.suffix.lower() == ".safetensors"
    # a header of 640 bytes starts like a pickle; libraries never unpickle what has this name
    if not pickled or (named and _has_safetensors_header(path)):
        _check_safetensors(path, size)
        return
    if named:
        raise UnsafePickleError(
            f"{path.name} is a pickle, expected safetensors as its name says",
            "get the model as safetensors from its maker",
        )
    try:
        for pickle in _pickles(path, archive=start == _ZIP):
            _check_pickle(path, pickle)
    except (ValueError, EOFError, zipfile.BadZipFile, struct.error) as error:
        raise InvalidMediaError(
            f"{path.name} is a damaged checkpoint: {error}", "download the file again"
        ) from error


def _has_safetensors_header(path: Path) -> bool:
    try:
        safetensors_header(path)
    except InvalidMediaError:
        return False
    return True


def _check_safetensors(path: Path, size: int) -> None:
    header = safetensors_header(path)
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
    spans: list[tuple[int, int]] = []
    for name, tensor in header.items():
        span = _span(tensor)
        if span is None:
            raise InvalidMediaError(
                f"{path.name}: the dtype {tensor.get('dtype')!r} and shape {tensor.get('shape')!r} "
                f"of tensor {name} do not fit its place {tensor.get('data_offsets')!r}",
                "download the file again",
            )
        spans.append(span)
    at = 0
    for first, last in sorted(spans):
        if first != at:
            raise InvalidMediaError(
                f"{path.name}: a tensor starts at byte {first}, expected {at}",
                "download the file again",
            )
        at = last
    if at != size - 8 - length:
        raise InvalidMediaError(
            f"{path.name} has {size - 8 - length} bytes of tensors, its header lists {at}",
            "download the file again, it breaks off",
        )


def _span(tensor: dict[str, object]) -> tuple[int, int] | None:
    """First and last byte, unless they contradict the shape."""
    offsets, shape, bits = tensor.get("data_offsets"), tensor.get("shape"), tensor.get("dtype")
    if not (_naturals(offsets) and _naturals(shape) and isinstance(bits, str) and bits in _BITS):
        return None
    if len(cast("list[int]", offsets)) != 2:
        return None
    first, last = cast("list[int]", offsets)
    if 8 * (last - first) != prod(cast("list[int]", shape)) * _BITS[bits]:
        return None
    return first, last


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and item >= 0 for item in cast("list[object]", value)
    )


def _pickles(path: Path, *, archive: bool) -> Iterator[IO[bytes]]:
    if not archive:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield file
        return
    with zipfile.ZipFile(path) as opened:
        names = [entry.filename for entry in opened.infolist()]
        if len(set(names)) != len(names):
            raise UnsafePickleError(
                f"{path.name} holds two entries of one name, so nobody can say which one is loaded",
                "get the model as safetensors from its maker",
            )
        held = [entry for entry in opened.infolist() if entry.filename.endswith(".pkl")]
        if not held:
            raise InvalidMediaError(
                f"{path.name} is an archive without a data.pkl", "download the file again"
            )
        for entry in held:
            if entry.file_size > LARGEST_PICKLE:
                raise UnsafePickleError(
                    f"{path.name}: {entry.filename} has {entry.file_size} bytes, "
                    f"expected at most {LARGEST_PICKLE}",
                    "get the model as safetensors from its maker",
                )
            yield BytesIO(opened.read(entry))


def _check_pickle(path: Path, pickle: IO[bytes]) -> None:
    last = ("", "")  # strings read; only for the message, since the memo can bring others
    for opcode, argument, _ in pickletools.genops(pickle):
        if isinstance(argument, str) and opcode.name.endswith("UNICODE"):
            last = (last[1], argument[:80])
        if opcode.name in ("GLOBAL", "INST"):
            if argument not in _ALLOWED_GLOBALS:
                raise _unsafe(path, f"refers to {str(argument)[:80]!r}")
        elif opcode.name in _NAMED_ON_THE_STACK:
            raise _unsafe(path, f"uses {opcode.name} (last names read: {' '.join(last)!r})")


def _unsafe(path: Path, what: str) -> UnsafePickleError:
    return UnsafePickleError(
        f"{path.name} {what}, which is no part of a state dict and could run code",
        "get the model as safetensors from its maker",
    )


check_single_file = check_weights
"""The name before folders were looked into as well."""
