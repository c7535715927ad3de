"""Messages between a process and the confined one: JSON, and open files beside it.

A message is 8 bytes of length, then so many bytes of JSON. Handles travel with the length
(SCM_RIGHTS, see unix(7)). Nothing is unpickled.
"""

import json
import os
import socket
import struct
import tempfile
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

Array = NDArray[np.uint8 | np.int64]
MOST_BYTES = 4 * 2**20
"""Of a message; ten thousand frames of an animation take a tenth of it."""
_LENGTH = struct.Struct(">Q")
_KINDS: dict[str, type[np.uint8] | type[np.int64]] = {"uint8": np.uint8, "int64": np.int64}
_PIECE = 2**30
"""Bytes that one call of the kernel writes or reads."""


def send(to: socket.socket, message: JsonValue, handle: int | None = None) -> None:
    """Send a message, with an open file beside it."""
    text = json.dumps(message).encode()
    handles = [] if handle is None else [handle]
    socket.send_fds(to, [_LENGTH.pack(len(text))], handles)
    to.sendall(text)


def receive(source: socket.socket) -> tuple[JsonValue, int | None]:
    """The next message, and the open file beside it, which the caller closes.

    Raises:
        EOFError: the other side is gone.
        ValueError: it is no message, or too long.
        TimeoutError: none came in time.
    """
    head, handles, _, _ = socket.recv_fds(source, _LENGTH.size, 1)
    try:
        head += _bytes(source, _LENGTH.size - len(head)) if len(head) < _LENGTH.size else b""
        (length,) = _LENGTH.unpack(head)
        return json.loads(_text(source, length)), handles[0] if handles else None
    except BaseException:
        for handle in handles:
            os.close(handle)
        raise


def _text(source: socket.socket, length: int) -> bytes:
    if length > MOST_BYTES:
        raise ValueError(f"an answer of {length} bytes, at most {MOST_BYTES} are taken")
    return _bytes(source, length)


def _bytes(source: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = source.recv(count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


def shared(content: bytes | Array) -> int:
    """A handle of a file without a name that holds bytes or an array; in memory on Linux."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("confined", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    try:
        plain = isinstance(content, bytes)
        rest = memoryview(content) if plain else np.ascontiguousarray(content).data.cast("B")
        while len(rest):
            rest = rest[os.write(handle, rest[:_PIECE]) :]
    except BaseException:
        os.close(handle)
        raise
    return handle


def content_of(handle: int) -> bytes:
    """The bytes in such a file."""
    found = bytearray(os.fstat(handle).st_size)
    _fill(handle, memoryview(found))
    return bytes(found)


def array_of(handle: int, kind: object, shape: object) -> Array:
    """The array in such a file, copied, so that nobody changes it later.

    Raises:
        ValueError: kind and shape are not those of the bytes.
    """
    if not (isinstance(kind, str) and kind in _KINDS and isinstance(shape, list)):
        raise ValueError(f"an array of {kind!r} and {shape!r}")
    sides = [side for side in shape if type(side) is int and side >= 0]
    count = 1
    for side in sides:
        count *= side
    if len(sides) != len(shape) or len(sides) > 3:
        raise ValueError(f"an array of shape {shape!r}")
    if count * np.dtype(_KINDS[kind]).itemsize != os.fstat(handle).st_size:
        raise ValueError(f"an array of {os.fstat(handle).st_size} bytes, expected {shape!r}")
    made: Array = np.empty(sides, _KINDS[kind])
    if made.size:
        _fill(handle, made.data.cast("B"))
    return made


def _fill(handle: int, room: memoryview) -> None:
    at = 0
    while at < len(room):
        read = os.preadv(handle, [room[at : at + _PIECE]], at)
        if not read:
            raise ValueError("an array that breaks off")
        at += read


def close(handle: int | None) -> None:
    """Close a handle, where there is one."""
    if handle is not None:
        with suppress(OSError):
            os.close(handle)
