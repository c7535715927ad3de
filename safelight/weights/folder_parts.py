"""Whether a part of a diffusers folder has all of its files, told by names before any is opened."""

from pathlib import Path
from typing import cast

from safelight.weights.json_files import INDEX, read_object

_WEIGHTS = (".safetensors", ".bin")
_WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Either of these makes a tokenizer."""


_ANY_WORDS = (*_WORDS, ("spiece.model",), ("vocab.txt",))
"""The same of a whole folder, whose tokenizers need not be CLIP's or T5's."""
_MAY_BE_AWAY = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Parts without which a pipeline draws."""


def missing_in(folder: Path) -> list[str]:
    """Files that a diffusers folder lacks, by what its index lists; told by names alone.

    Args:
        folder: with a `model_index.json`.

    Raises:
        InvalidMediaError: a list in it is no JSON.
    """
    missing: list[str] = []
    for part, named in read_object(folder / "model_index.json").items():
        if not isinstance(named, list) or part in _MAY_BE_AWAY or "/" in part:
            continue
        library, kind = map(str, [*cast("list[object]", named), "", ""][:2])
        if library not in ("diffusers", "transformers"):
            continue
        here = folder / part
        if not here.is_dir():
            gone: str | None = ""
        elif kind.endswith("Scheduler"):
            there = (here / "scheduler_config.json").is_file()
            gone = None if there else "scheduler_config.json"
        elif "Tokenizer" in kind:
            whole = any(all((here / each).is_file() for each in names) for names in _ANY_WORDS)
            gone = None if whole else "tokenizer.json"
        else:
            gone = lacks(here)
        if gone is not None:
            missing.append(f"{part}/{gone}")
    return missing


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
