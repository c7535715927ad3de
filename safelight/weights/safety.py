"""Looks into weights files before anything loads them: no pickle that could run code passes."""

import json
import pickletools
import struct
import zipfile
from pathlib import Path

from safelight.errors import InvalidMediaError, UnsafePickleError

LARGEST_HEADER = 100 * 2**20
"""Bytes; the limit the safetensors format sets for its header."""
_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
_ALLOWED_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch Size",
        "torch device",
        *(
            f"torch {kind}Storage"
            for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte")
        ),
        *(f"torch {kind}" for kind in ("float32", "float16", "bfloat16", "int64")),
        "_codecs encode",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "numpy dtype",
    }
)
"""What a plain state dict refers to; anything else could run code."""


def check_single_file(path: Path) -> None:
    """Refuse a weights file that is damaged, or whose pickle refers to anything but tensors.

    The content decides, not the extension.

    Raises:
        UnsafePickleError: a pickle that could run code, or a pickle that calls itself safetensors.
        InvalidMediaError: neither safetensors nor a torch checkpoint, or damaged.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path) or start[:1] == b"\x80":
        if path.suffix.lower() == ".safetensors":
            raise UnsafePickleError(
                f"{path.name} is a pickle, expected safetensors as its name says",
                "get the model as safetensors from its maker",
            )
        _check_pickle(path)
        return
    _check_safetensors(path, start)


def _check_safetensors(path: Path, start: bytes) -> None:
    size = path.stat().st_size
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if not 2 <= length <= min(LARGEST_HEADER, size - 8) or start[8:9] != b"{":
        raise InvalidMediaError(
            f"{path.name} ({size} bytes) has no safetensors header", "download the file again"
        )
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise InvalidMediaError(
                f"{path.name} has a damaged safetensors header", "download the file again"
            ) from error
    ends = [0]
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        first, last = tensor["data_offsets"]
        count = 1
        for side in tensor["shape"]:
            count *= side
        if last - first != count * _SIZES.get(tensor["dtype"], -1):
            raise InvalidMediaError(
                f"{path.name}: tensor {name} has {last - first} bytes, its shape needs others",
                "download the file again",
            )
        ends.append(last)
    if max(ends) != size - 8 - length:
        raise InvalidMediaError(
            f"{path.name} has {size - 8 - length} bytes of tensors, its header lists {max(ends)}",
            "download the file again, it breaks off",
        )


def _check_pickle(path: Path) -> None:
    for pickle in _pickles(path):
        strings: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(pickle):
                if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE"):
                    strings.append(str(argument))
                if opcode.name == "STACK_GLOBAL":
                    _check_global(path, " ".join(strings[-2:]))
                elif opcode.name in ("GLOBAL", "INST"):
                    _check_global(path, str(argument))
        except ValueError as error:
            raise InvalidMediaError(
                f"{path.name} holds a damaged pickle", "download the file again"
            ) from error


def _pickles(path: Path) -> list[bytes]:
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pkl")]
        return [archive.read(name) for name in names]


def _check_global(path: Path, name: str) -> None:
    if name not in _ALLOWED_GLOBALS:
        raise UnsafePickleError(
            f"{path.name} refers to {name!r}, which is no part of a state dict and could run code",
            "get the model as safetensors from its maker",
        )
