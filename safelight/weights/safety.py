"""Looks into weights files before anything loads them: no pickle that could run code passes."""

import json
import lzma
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, cast

from pydantic import JsonValue

from safelight.confined.calling import call_confined
from safelight.confined.transport import Array
from safelight.errors import InvalidMediaError, UnsafePickleError
from safelight.weights.gguf_files import SUFFIX as GGUF
from safelight.weights.gguf_files import gguf_header
from safelight.weights.hashing import entries_of, stamp_of
from safelight.weights.json_files import (
    CONFIGS,
    INDEX,
    LARGEST_HEADER,
    WEIGHTS_FILES,
    check_config,
    check_index,
)

LARGEST_PICKLE = 8 * 2**20
"""Bytes of all pickles of a file; the tensors lie beside them, so real ones are far smaller."""
MOST_OPCODES = 2_000_000
"""Of all pickles of a file; a tensor takes about thirty."""
MOST_DIMENSIONS = 16
"""Of a tensor; torch's operations take fewer."""
MOST_REMEMBERED = 4096
"""Files that are not looked into again while they do not change."""
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


_passed: set[tuple[object, ...]] = set()


def check_weights(path: Path, *, shipped: bool = False) -> None:
    """Refuse weights that are damaged, or whose pickle refers to anything but tensors.

    The content decides, not the extension. Files are looked into in a process with limits; one that
    did not change is looked into once.

    Args:
        path: a single file, or a folder whose weights files are all looked at.
        shipped: whether it came with this program, and so needs no process of its own.

    Raises:
        UnsafePickleError: a pickle that could run code, or a pickle that calls itself safetensors.
        InvalidMediaError: neither safetensors nor a torch checkpoint, or damaged.
    """
    found = {str(file): _state(file) for file in _looked_at(path)}
    new = [file for file, state in found.items() if state not in _passed]
    if not new:
        return
    if shipped:
        check_files(new)
    else:
        call_confined(check_files, list[JsonValue](new), name=path.name, file_bytes=0)
    if len(_passed) > MOST_REMEMBERED:
        _passed.clear()
    _passed.update(found.values())


def check_files(files: list[str]) -> tuple[None, Array | None]:
    """What `check_weights` does with files that it sees for the first time."""
    for file in map(Path, files):
        if file.name.endswith(INDEX):
            check_index(file)
        elif file.name in CONFIGS:
            check_config(file)
        else:
            _check(file)
    return None, None


def _looked_at(path: Path) -> Iterator[Path]:
    """Those that a library would read tensors from, or be led by."""
    for file in sorted(entries_of(path)) if path.is_dir() else [path]:
        if file.is_dir():
            continue
        if not file.is_file():
            raise InvalidMediaError(f"{file.name} is not a plain file", "put the file itself there")
        if file == path or file.suffix.lower() in WEIGHTS_FILES or _leads(file):
            yield file


def _leads(file: Path) -> bool:
    """Whether a library builds by it, or looks for others."""
    return file.name.endswith(INDEX) or file.name in CONFIGS


def _state(file: Path) -> tuple[object, ...]:
    """What a look depends on: the name as well."""
    named = file.name if _leads(file) else file.suffix.lower()
    return named, *stamp_of(file.stat())


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Names of the tensors with dtype, shape and data_offsets; reads nothing else.

    Raises:
        InvalidMediaError: no safetensors file, or damaged.
    """
    tensors = {k: v for k, v in whole_header(path).items() if k != "__metadata__"}
    if not all(isinstance(tensor, dict) for tensor in tensors.values()):
        raise InvalidMediaError(
            f"{path.name} has a safetensors header that does not describe tensors",
            "download the file again",
        )
    return cast("dict[str, dict[str, object]]", tensors)


def whole_header(path: Path) -> dict[str, object]:
    """The header of a safetensors file with its `__metadata__`; raises as `safetensors_header`."""
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
    if not isinstance(header, dict):
        raise InvalidMediaError(
            f"{path.name} has a safetensors header that is no object", "download the file again"
        )
    return cast("dict[str, object]", header)


def safetensors_metadata(path: Path) -> dict[str, str]:
    """What a single file says of itself beside its tensors; pickles say nothing.

    Raises:
        InvalidMediaError: damaged.
    """
    if is_pickled(path) or is_gguf(path):
        return {}
    said = whole_header(path).get("__metadata__")
    pairs = cast("dict[str, object]", said).items() if isinstance(said, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors of a single file, of which nothing is loaded; a pickle's other text too.

    Call `check_weights` first.

    Raises:
        InvalidMediaError: damaged.
    """
    if is_gguf(path):
        return frozenset(gguf_header(path))
    if not is_pickled(path):
        return frozenset(safetensors_header(path))
    return frozenset(
        argument
        for pickle in _pickles(path)
        for opcode, argument, _ in pickletools.genops(pickle)
        if isinstance(argument, str) and opcode.name.endswith("UNICODE")
    )


def is_gguf(path: Path) -> bool:
    """Whether libraries read a file as GGUF: by its name, as they read safetensors."""
    return path.suffix.lower() == GGUF


def _check(path: Path) -> None:
    if is_gguf(path):
        gguf_header(path)
        return
    if not is_pickled(path):
        _check_safetensors(path, path.stat().st_size)
        return
    if path.suffix.lower() == ".safetensors":
        raise UnsafePickleError(
            f"{path.name} is a pickle, expected safetensors as its name says",
            "get the model as safetensors from its maker",
        )
    try:
        opcodes = 0
        for pickle in _pickles(path):
            opcodes = _check_pickle(path, pickle, opcodes)
    except (  # an archive that is encrypted, or packed in a way that is not known, as well
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        struct.error,
        zlib.error,
        lzma.LZMAError,
        OSError,
        RuntimeError,
        MemoryError,
        OverflowError,
        LookupError,
    ) as error:
        raise InvalidMediaError(
            f"{path.name} is a damaged checkpoint: {error}", "download the file again"
        ) from error


def is_pickled(path: Path) -> bool:
    """What torch would do with a file: an archive by its first bytes, else a row of pickles."""
    if not (_starts_with(path, _ZIP) or _starts_with(path, _PICKLE)):
        return False
    # a header of 640 bytes starts like a pickle; libraries never unpickle what has this name
    return not (path.suffix.lower() == ".safetensors" and _has_safetensors_header(path))


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


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
    if len(cast("list[int]", shape)) > MOST_DIMENSIONS:
        return None
    first, last = cast("list[int]", offsets)
    if 8 * (last - first) != prod(cast("list[int]", shape)) * _BITS[bits]:
        return None
    return first, last


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and item >= 0 for item in cast("list[object]", value)
    )


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    if not _starts_with(path, _ZIP):
        with path.open("rb") as file:
            # a pickle may ask for more bytes at once than there is memory
            content = BytesIO(file.read(LARGEST_PICKLE))
        for _ in range(_LEGACY_PICKLES):
            yield content
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
        if (together := sum(entry.file_size for entry in held)) > LARGEST_PICKLE:
            raise UnsafePickleError(
                f"{path.name}: its pickles have {together} bytes, "
                f"expected at most {LARGEST_PICKLE}",
                "get the model as safetensors from its maker",
            )
        for entry in held:
            with opened.open(entry) as pickle:
                yield BytesIO(pickle.read(entry.file_size))


def _check_pickle(path: Path, pickle: IO[bytes], opcodes: int) -> int:
    last = ("", "")  # strings read; only for the message, since the memo can bring others
    for opcode, argument, _ in pickletools.genops(pickle):
        opcodes += 1
        if opcodes > MOST_OPCODES:
            raise _unsafe(path, f"has more than {MOST_OPCODES} opcodes")
        if isinstance(argument, str) and opcode.name.endswith("UNICODE"):
            last = (last[1], argument[:80])
        if opcode.name in ("GLOBAL", "INST"):
            if argument not in _ALLOWED_GLOBALS:
                raise _unsafe(path, f"refers to {str(argument)[:80]!r}")
        elif opcode.name in _NAMED_ON_THE_STACK:
            raise _unsafe(path, f"uses {opcode.name} (last names read: {' '.join(last)!r})")
    return opcodes


def _unsafe(path: Path, what: str) -> UnsafePickleError:
    return UnsafePickleError(
        f"{path.name} {what}, which is no part of a state dict and could run code",
        "get the model as safetensors from its maker",
    )


check_single_file = check_weights
"""The name before folders were looked into as well."""
