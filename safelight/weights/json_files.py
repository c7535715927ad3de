"""JSON files of models: read within bounds, and looked into before a library follows them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from safelight.errors import ForbiddenPathError, InvalidMediaError

LARGEST_HEADER = 16 * 2**20
"""Bytes; the largest models need 1 MB, and reading one takes ten times its size in memory."""
INDEX = ".index.json"
"""How the names of files end that list the parts of split weights."""
WEIGHTS_FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".pkl")
"""Files that a library opens as weights; single models and parts of diffusers folders."""
CONFIGS = ("config.json", "scheduler_config.json")
"""Files by whose numbers a library builds a network or a scheduler, before it looks at weights."""
MOST_LAYERS = 200
"""Of any one kind: the deepest text encoders have 80, networks that draw have 60."""
MOST_TIMESTEPS = 100_000
"""Of a scheduler, which keeps tables of them; trainers use 1,000."""
LARGEST_NUMBER = 10**7
"""Any other whole number: positions, words and channels, for which tables are made."""
LONGEST_LIST = 100_000


def check_index(path: Path) -> None:
    """Refuse an index that leads the libraries to files that nobody looked into."""
    try:
        listed = cast("dict[str, object]", read_object(path)).get("weight_map", {})
        names = set(cast("dict[str, Any]", listed).values())
        plain = all(isinstance(n, str) and n and n == Path(n).name for n in names)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidMediaError(
            f"{path.name} does not list the parts of weights: {error}", "get the model again"
        ) from error
    if not plain:
        raise ForbiddenPathError(
            f"{path.name} lists parts outside its folder", "put the parts beside it"
        )
    for name in sorted(names):
        if Path(name).suffix.lower() not in WEIGHTS_FILES:
            raise InvalidMediaError(
                f"{path.name} lists {name[:80]!r}, whose name is none of weights",
                "get the model as safetensors from its maker",
            )


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InvalidMediaError: no JSON, no object, or larger than `LARGEST_HEADER`.
    """
    with file.open("rb") as opened:
        content = opened.read(LARGEST_HEADER + 1)
    problem = "" if len(content) <= LARGEST_HEADER else f"more than {LARGEST_HEADER} bytes"
    found: object = None
    try:
        found = json.loads(content) if not problem else None
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem or not isinstance(found, dict):
        raise InvalidMediaError(
            f"{file} is not a JSON object: {problem or type(found).__name__}",
            "correct the file, or get the model again",
        )
    return cast("dict[str, Any]", found)


def check_config(path: Path) -> None:
    """Refuse a config whose numbers would have a library build without end.

    Raises:
        InvalidMediaError: a number or a list is larger than any model's.
    """
    for name, value in _values("", read_object(path)):
        if isinstance(value, list):
            found, most = len(cast("list[object]", value)), LONGEST_LIST
            what = f"{name} lists {found} values"
        elif isinstance(value, int) and not isinstance(value, bool):
            found, most = value, _most(name)
            what = f"{name} is {str(found)[:40]}"
        else:
            continue
        if found > most:
            raise InvalidMediaError(
                f"{path.parent.name}/{path.name}: {what}, expected at most {most}",
                "get the model again, or correct the file",
            )


def _values(name: str, value: object) -> Iterator[tuple[str, object]]:
    """All values in a JSON object, each under the nearest name above it."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        yield name[:80], value
        if isinstance(value, dict):
            waiting += cast("dict[str, object]", value).items()
        elif isinstance(value, list):
            waiting += [(name, each) for each in cast("list[object]", value)]


def _most(name: str) -> float:
    if name == "num_train_timesteps":
        return MOST_TIMESTEPS
    if "layers" in name:
        return MOST_LAYERS
    return float("inf") if name.startswith("rope_") else LARGEST_NUMBER  # a wavelength
