"""Headers of GGUF files: what stands in them is read within bounds, what is wrong is refused."""

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from safelight.errors import InvalidMediaError, PipelineError
from safelight.weights.gguf_files import BLOCKS, gguf_header
from safelight.weights.safety import check_weights, tensor_names

U32, STRING, ARRAY = 4, 8, 9


def text(said: bytes) -> bytes:
    return struct.pack("<Q", len(said)) + said


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    sides = struct.pack(f"<{len(shape)}Q", *shape[::-1])
    return text(name) + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)


def file_of(
    *tensors: bytes,
    fields: tuple[bytes, ...] = (),
    content: int = 4096,
    version: int = 3,
    count: int | None = None,
) -> bytes:
    number = len(tensors) if count is None else count
    head = b"GGUF" + struct.pack("<IQQ", version, number, len(fields)) + b"".join(fields)
    head += b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(content)


GOOD = tensor(b"a", (4, 64), 8, 0), tensor(b"b", (16,), 0, 288)


def test_names_shapes_and_places_are_those_that_the_package_wrote(tmp_path: Path):
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_array("words", ["one", "two"])
    writer.add_array("numbers", [1, 2, 3])
    values = np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("a", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("b", values.astype(np.float16)[None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf_header(path)
    read = {each.name: each for each in gguf.GGUFReader(path).tensors}
    assert {name: (each.shape, each.kind) for name, each in header.items()} == {
        "a": ((4, 64), "Q8_0"),
        "b": ((1, 4, 64), "F16"),
    }
    for name, each in header.items():
        assert (each.first, each.size) == (read[name].data_offset, read[name].n_bytes)
    check_weights(path)
    assert tensor_names(path) == {"a", "b"}


def test_blocks_are_those_of_the_package():
    for number, (name, values, size) in BLOCKS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (values, size))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no GGUF header|does not end"),
        (b"PK\x03\x04 something else that is long enough", "no GGUF header"),
        (file_of(*GOOD, version=1), "version 1"),
        (file_of(*GOOD, version=3 << 24), "version"),
        (file_of(*GOOD, count=2**40), "lists 1099511627776 tensors"),
        (file_of(*GOOD, count=3), "has"),
        (file_of(tensor(b"x", (4, 63), 8, 0)), "parts of blocks"),
        (file_of(tensor(b"x", (4, 64), 8, 0), tensor(b"x", (4, 64), 8, 288)), "twice"),
        (file_of(tensor(b"x", (4, 64), 8, 0), tensor(b"y", (4, 64), 8, 32)), "over"),
        (file_of(tensor(b"x", (4, 64), 8, 4064)), "breaks off"),
        (file_of(tensor(b"x", (4, 64), 8, 2**63)), "breaks off"),
        (file_of(tensor(b"x", (2**40, 64), 8, 0)), "side of"),
        (file_of(tensor(b"x", (4, 64), 18, 0)), "of kind 18"),
        (file_of(tensor(b"x", (1,) * 5, 0, 0)), "5 dimensions"),
        (file_of(tensor(b"\xff", (1,), 0, 0)), "UTF-8"),
        (file_of(tensor(b"x" * 600, (1,), 0, 0)), "name of 600"),
        (file_of(fields=(text(b"k") + struct.pack("<I", 99),)), "type 99"),
        (file_of(fields=(text(b"k") + struct.pack("<IQ", STRING, 2**60),)), "reasonable"),
        (
            file_of(fields=(text(b"k") + struct.pack("<IIQ", ARRAY, U32, 2**62),)),
            "reasonable",
        ),
        (
            file_of(fields=(text(b"k") + struct.pack("<I", ARRAY) * 9,)),
            "type 9|list of|reasonable",
        ),
        (
            file_of(fields=(text(b"general.alignment") + struct.pack("<II", U32, 24),)),
            "power of two",
        ),
    ],
)
def test_what_is_damaged_or_out_of_bounds_is_refused(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidMediaError, match=said):
        gguf_header(path)


def test_a_thousand_changed_files_are_read_or_refused(tmp_path: Path):
    path = tmp_path / "changed.gguf"
    whole = file_of(*GOOD, fields=(text(b"k") + struct.pack("<I", STRING) + text(b"value"),))
    path.write_bytes(whole)
    assert gguf_header(path).keys() == {"a", "b"}
    chance = random.Random(1)
    refused = 0
    for _ in range(1000):
        held = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.randrange(4)):
            if held:
                held[chance.randrange(min(len(held), 200))] = chance.randrange(256)
        path.write_bytes(held)
        try:
            for each in gguf_header(path).values():
                assert each.first + each.size <= len(held)
        except PipelineError:
            refused += 1
    assert refused > 300
