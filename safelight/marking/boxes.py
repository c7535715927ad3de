"""Takes chance out of a C2PA manifest, so that the same file is signed with the same bytes.

C2PA's library salts every assertion with random bytes, which nothing turns off; the hashes of the
assertions, the claim over them and the signature follow from the salts. Here each salt is made of
what it salts, and hashes and signature are made again. No length changes, so the manifest stays
where it was put.

Source:
    ISO 19566-5 (JUMBF), RFC 9052 section 4.4 (what COSE signs), C2PA 2.2 section 11.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_HEADER = 8
_SALT, _SALT_BYTES = b"c2sh", 16
_TAGGED_LIST = b"\xd2\x84"
"""How COSE_Sign1 begins: its tag, and a list of four."""
_BYTES = 2
"""CBOR's major type of byte strings."""


class ManifestShapeError(ValueError):
    """A manifest is not built as the library that wrote it builds them."""


@dataclass(frozen=True)
class Box:
    """Where a box lies."""

    start: int
    """Of its header."""
    end: int
    """Behind its last byte."""
    kind: bytes
    """Four letters."""

    @property
    def content(self) -> int:
        """Where what it holds begins."""
        return self.start + _HEADER


def boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[Box]:
    """The boxes that follow one another between two places."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < _HEADER or start + size > end:
            raise ManifestShapeError(f"a box of {size} bytes at {start}, of {end - start} left")
        yield Box(start, start + size, kind)
        start += size


def repeatable(store: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The same manifest store with salts, hashes and signature that follow from the rest.

    Args:
        store: as C2PA's library made it; the last manifest in it is the one just signed.
        sign: of a claim; of the length that stands there already.

    Raises:
        ManifestShapeError: the store is not built as expected.
    """
    data = bytearray(store)
    (whole,) = boxes(data, 0, len(data))
    *_, manifest = boxes(data, whole.content, whole.end)
    parts = {_label(data, part): part for part in _children(data, manifest)}
    try:
        assertions = list(_children(data, parts["c2pa.assertions"]))
        claim = next(part for label, part in parts.items() if label.startswith("c2pa.claim"))
        signature = parts["c2pa.signature"]
    except (KeyError, StopIteration) as error:
        raise ManifestShapeError(f"the manifest holds {sorted(parts)}") from error
    before = [_hash(data, each) for each in assertions]
    for assertion, old in zip(assertions, before, strict=True):
        if not _salted_anew(data, assertion):
            continue
        new = _hash(data, assertion)
        _replace(data, old, new, manifest)
    _sign(data, claim, signature, sign)
    return bytes(data)


def _children(data: bytearray, above: Box) -> Iterator[Box]:
    """Boxes inside another, without its description."""
    _, *inside = boxes(data, above.content, above.end)
    yield from inside


def _label(data: bytearray, box: Box) -> str:
    description = next(boxes(data, box.content, box.end))
    begins = description.content + 17  # kind and toggles
    return bytes(data[begins : data.index(0, begins)]).decode()


def _hash(data: bytearray, box: Box) -> bytes:
    return hashlib.sha256(data[box.content : box.end]).digest()


def _salted_anew(data: bytearray, assertion: Box) -> bool:
    description = next(boxes(data, assertion.content, assertion.end))
    at = data.find(_SALT, description.content, description.end)
    if at < 0:
        return False
    salt = slice(at + len(_SALT), at + len(_SALT) + _SALT_BYTES)
    data[salt] = bytes(_SALT_BYTES)
    data[salt] = _hash(data, assertion)[:_SALT_BYTES]
    return True


def _replace(data: bytearray, old: bytes, new: bytes, inside: Box) -> None:
    at = data.find(old, inside.start, inside.end)
    if at < 0:
        raise ManifestShapeError("the claim does not name the hash of an assertion")
    while at >= 0:
        data[at : at + len(old)] = new
        at = data.find(old, at + len(new), inside.end)


def _sign(data: bytearray, claim: Box, signature: Box, sign: Callable[[bytes], bytes]) -> None:
    (claimed,) = _children(data, claim)
    (signed,) = _children(data, signature)
    if not data.startswith(_TAGGED_LIST, signed.content):
        raise ManifestShapeError("the signature is no COSE_Sign1")
    begins = signed.content + 2
    protected = data[begins : begins + _string_size(data, begins)]
    payload = bytes(data[claimed.content : claimed.end])
    to_sign = b"\x84\x6aSignature1" + bytes(protected) + b"\x40" + _head(len(payload)) + payload
    made = sign(to_sign)
    place = signed.end - len(made)
    head = _head(len(made))
    if not data.startswith(head, place - len(head)):
        raise ManifestShapeError(f"no signature of {len(made)} bytes stands at the end")
    data[place : signed.end] = made


def _head(size: int) -> bytes:
    """The head of a CBOR byte string."""
    if size < 24:
        return bytes((_BYTES << 5 | size,))
    for code, form, limit in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32)):
        if size < limit:
            return bytes((_BYTES << 5 | code,)) + struct.pack(form, size)
    raise ManifestShapeError(f"a claim of {size} bytes")


def _string_size(data: bytearray, at: int) -> int:
    """Bytes of the CBOR byte string that begins somewhere, with its head."""
    kind, code = divmod(data[at], 32)
    if kind != _BYTES or code > 26:
        raise ManifestShapeError("the protected header is no byte string")
    if code < 24:
        return 1 + code
    width = 1 << (code - 24)
    return 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big")
