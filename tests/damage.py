"""Ways to damage what strangers send, the same for the same chance."""

import json
import random
import struct
from copy import deepcopy
from typing import Any

ODD_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    10**30,
    -(10**30),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, "", [], {}, [[]], [None], {"": None}, "x" * 100_000, "\ud83d", "a\0b"),
    *(
        "../../etc/passwd",
        "store:outputs/../x",
        "\x1b[2J\n",
        "9" * 5000,
        ["x"] * 5000,
        *ODD_NUMBERS,
    ),
)


def flipped(chance: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data)) if data else 0
        length = chance.choice((1, 4, 16, 256))
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                data[at:at] = chance.choice(
                    (b"\0", b"\xff\xff\xff\xff", b'"', b"[" * 9000, b"9" * 99)
                )
            case _:
                data[at : at + 4] = struct.pack("<i", chance.choice((0, -1, 2**31 - 1, 2**24)))
    return bytes(data)


def twisted(chance: random.Random, content: bytes) -> bytes:
    """JSON with odd values, fields left out or added; not always JSON any more."""
    if chance.random() < 0.3:
        return flipped(chance, content)
    try:
        return json.dumps(_twisted(chance, json.loads(content))).encode()
    except (RecursionError, ValueError):
        return flipped(chance, content)


def _twisted(chance: random.Random, value: Any) -> Any:
    for _ in range(chance.choice((1, 1, 2, 5))):
        places = list(_places(value))
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(4):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(("", "__class__", "extra", "x" * 9999))] = deepcopy(
                    holder[key]
                )
            case 2:
                deep: Any = holder[key]
                for _ in range(chance.choice((1, 50, 400))):
                    deep = [deep] if chance.random() < 0.5 else {"a": deep}
                holder[key] = deep
            case _:
                holder[key] = deepcopy(chance.choice(ODD_VALUES))
    return value


def _places(value: Any) -> Any:
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            pairs = list(here.items())
        else:
            pairs = list(enumerate(here)) if isinstance(here, list) else []
        for key, inner in pairs:
            yield here, key
            waiting.append(inner)
