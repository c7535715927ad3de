"""Whether a part of a diffusers folder has all of its files, told by names before any is opened."""

from pathlib import Path
from typing import cast

from safelight.weights.json_files import INDEX, read_object

_WEIGHTS = (".safetensors", ".bin")
_WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Either of these makes a tokenizer."""


def lacks(folder: Path, *, words: bool = False) -> str | None:
    """The first file that a part of a pipeline lacks; None where it is whole.

    Args:
        folder: of the part.
        words: whether it is a tokenizer and no network.

    Raises:
        InvalidMediaError: its index of split weights is no JSON.
    """
    if words:
        whole = any(all((folder / name).is_file() for name in names) for names in _WORDS)
        return None if whole else _WORDS[0][0]
    if not (folder / "config.json").is_file():
        return "config.json"
    there = {file.name for file in folder.iterdir()}
    for index in sorted(name for name in there if name.endswith(INDEX)):
        listed = read_object(folder / index).get("weight_map")
        names = cast("dict[str, object]", listed).values() if isinstance(listed, dict) else ()
        gone = sorted({str(name) for name in names} - there)
        if gone:
            return gone[0]
    if not any(name.endswith(_WEIGHTS) for name in there):
        return "weights (.safetensors)"
    return None
