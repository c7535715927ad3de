"""What a decoder may do, as functions that a confined process can call."""

import ctypes
import os
import signal
import socket
import time

import numpy as np

from safelight.confined.transport import Array
from safelight.errors import MissingFileError


def told(data: bytes, times: int) -> tuple[list[str], Array | None]:
    return [data.decode()] * times, np.arange(6, dtype=np.uint8).reshape(1, 2, 3)


def who() -> tuple[tuple[int, dict[str, str]], Array | None]:
    return (os.getpid(), dict(os.environ)), None


def takes_memory(mebibytes: int) -> tuple[int, Array | None]:
    return len(bytearray(mebibytes * 2**20)), None


def takes_memory_in_c(mebibytes: int) -> tuple[int, Array | None]:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    room = libc.malloc(ctypes.c_size_t(mebibytes * 2**20))
    ctypes.memset(room, 1, mebibytes * 2**20)  # as decoders do that look at no result
    return 0, None


def loops() -> tuple[int, Array | None]:
    while True:
        pass


def sleeps() -> tuple[int, Array | None]:
    while True:
        time.sleep(1)


def crashes() -> tuple[int, Array | None]:
    ctypes.string_at(0)
    return 0, None


def aborts() -> tuple[int, Array | None]:
    os.abort()


def ends() -> tuple[int, Array | None]:
    os._exit(3)


def is_killed() -> tuple[int, Array | None]:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0, None


def asserts() -> tuple[int, Array | None]:
    raise AssertionError


def raises() -> tuple[int, Array | None]:
    raise IndexError("of a list that is too short")


def refuses() -> tuple[int, Array | None]:
    raise MissingFileError("there is none", "bring one")


def talks() -> tuple[str, Array | None]:
    return "x" * (5 * 2**20), None


def draws() -> tuple[int, Array | None]:
    return 0, np.zeros((2000, 2000, 3), np.uint8)


def writes(path: str) -> tuple[int, Array | None]:
    with open(path, "wb") as file:
        for _ in range(20):
            file.write(bytes(2**20))
    return 0, None


def says_what_it_is_not() -> tuple[int, Array | None]:
    return "no number", None  # type: ignore[return-value]


def forges(handle: int) -> tuple[int, Array | None]:
    with socket.socket(fileno=os.dup(handle)) as parent:
        parent.sendall(b"\0" * 7 + b"\5nota!")
        time.sleep(60)
    return 0, None
