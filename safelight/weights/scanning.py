"""Finds the models below a folder by the names and stamps of files; opens none of them."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from safelight.weights.hashing import entries_of
from safelight.weights.places import FACTS, PARTS, PARTS_OF_ONE, models_folder

MODEL_FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".gguf")
"""Single files that are models by themselves."""
PREVIEWS = (".preview.png", ".preview.jpg", ".preview.webp", ".png", ".jpg", ".jpeg", ".webp")
"""Ends of the names of pictures that people and other programs put beside a model."""
FACTS_ENDS = (".json", ".civitai.info")
"""Ends of the names of files that say what a model is."""
LONGEST_NAME = 128
_PART = re.compile(
    r"(diffusion_pytorch_model|model|pytorch_model|adapter_model)(\.fp16)?"
    r"(-\d{5}-of-\d{5})?\.(safetensors|bin)"
)
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.\w+")
Listed = dict[str, "os.DirEntry[str]"]
"""Entries of a folder by name."""
Beside = dict[str, tuple[str | None, str | None]]
"""By the stem of a model, the names of its file of facts and of a picture, in the same folder."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


class Unit(NamedTuple):
    """A model: a single file, or a folder that libraries open whole; there are many."""

    path: str
    """Absolute, through no link."""
    stamp: str
    """Changes with any of its files, and with those beside it."""
    size: int
    """Bytes of all its files."""
    folder: bool = False
    """Whether it is one."""
    facts: str | None = None
    """Its file of facts."""
    preview: str | None = None
    """A picture beside it."""


@dataclass(frozen=True)
class Skipped:
    """Something that has the name of a model and is not taken for one."""

    path: str
    """As it was met."""
    why: str
    """For people."""


@dataclass
class Walk:
    """What lies below a folder."""

    units: dict[str, Unit] = field(default_factory=dict[str, Unit])
    """By path."""
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    """In the order they were met."""


def walk(root: Path) -> Walk:
    """Everything below a folder; links are followed as long as they stay in it, each folder once.

    Args:
        root: resolved.
    """
    found = Walk()
    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    while waiting:
        here = waiting.pop()
        try:
            known = os.stat(here)
            if (known.st_dev, known.st_ino) in seen:
                continue
            seen.add((known.st_dev, known.st_ino))
            with os.scandir(here) as entries:
                listed = {entry.name: entry for entry in entries}
        except OSError as error:
            found.skipped.append(Skipped(here, error.strerror or "cannot be read"))
            continue
        if _is_whole(listed, top=here == str(root)):
            _add_folder(found, here, root)
            continue
        beside = _beside(listed)
        top = here == str(root)
        for name, entry in listed.items():
            if name.startswith(".") or name.endswith(PARTS_OF_ONE) or (top and name == PARTS):
                continue
            if entry.is_symlink():
                waiting.extend(_linked(found, entry, listed, beside, root))
            elif entry.is_dir():
                waiting.append(entry.path)
            elif name.lower().endswith(MODEL_FILES):
                _add_file(found, entry.path, entry, listed, beside)
    return found


def unit_at(path: Path) -> Unit | None:
    """The model at a path; None where there is none.

    Links in a folder that is one may lead to anywhere in the models folder, as for `walk`.
    """
    root = models_folder() if path.is_relative_to(models_folder()) else path
    found = Walk()
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                if not _is_whole({entry.name: entry for entry in entries}, top=False):
                    return None
            _add_folder(found, str(path), root)
        elif path.suffix.lower() in MODEL_FILES:
            with os.scandir(path.parent) as entries:
                listed = {entry.name: entry for entry in entries}
            found.units[str(path)] = _file(str(path), path.stat(), listed, _beside(listed))
    except OSError:
        return None
    return found.units.get(str(path))


def _linked(
    found: Walk, entry: "os.DirEntry[str]", listed: Listed, beside: Beside, root: Path
) -> Iterator[str]:
    """Enter what a link leads to; yields the folder that is to be looked into instead."""
    is_model = entry.name.lower().endswith(MODEL_FILES)
    target = _inside(entry.path, root)
    if target is None:
        if is_model or os.path.isdir(entry.path):
            why = "a link out of the folder, or to nothing"
            found.skipped.append(Skipped(entry.path, why))
    elif os.path.isdir(target):
        yield target
    elif is_model:
        _add_file(found, target, Path(target), listed, beside)


def _add_file(
    found: Walk, path: str, entry: "os.DirEntry[str] | Path", listed: Listed, beside: Beside
) -> None:
    """Enter a single file, unless it cannot be one."""
    name = path.rpartition("/")[2]
    if path in found.units or _SHARD.fullmatch(name):
        return
    if _UNFIT.search(name) or len(name) - len(os.path.splitext(name)[1]) > LONGEST_NAME:
        found.skipped.append(Skipped(path, "no name that a model can be called by"))
        return
    try:
        known = entry.stat()
        if S_ISREG(known.st_mode):
            found.units[path] = _file(path, known, listed, beside)
        else:
            found.skipped.append(Skipped(path, "no plain file"))
    except OSError as error:
        found.skipped.append(Skipped(path, error.strerror or "cannot be read"))


def _beside(listed: Listed) -> Beside:
    """What says more about models of the same folder."""
    found: Beside = {}
    for end in (*FACTS_ENDS, *PREVIEWS):
        for name in listed:
            if not name.endswith(end):
                continue
            stem = name.removesuffix(end)
            facts, preview = found.get(stem, (None, None))
            if end in FACTS_ENDS:
                found[stem] = (facts or name, preview)
            else:
                found[stem] = (facts, preview or name)
    return found


def _file(path: str, known: os.stat_result, listed: Listed, beside: Beside) -> Unit:
    stamp = _stamp(known)
    folder, _, name = path.rpartition("/")
    facts, preview = beside.get(os.path.splitext(name)[0], (None, None))
    if facts is not None:
        stamp += "+" + _stamp(listed[facts].stat())
    if preview is not None:
        stamp += "+" + preview
    at = f"{folder}/{facts}" if facts is not None else None
    return Unit(path, stamp, known.st_size, facts=at, preview=preview)


def _add_folder(found: Walk, here: str, root: Path) -> None:
    """A folder that is one model."""
    if _UNFIT.search(here.rpartition("/")[2]):
        found.skipped.append(Skipped(here, "no name that a model can be called by"))
        return
    size, stamps = 0, hashlib.sha256()
    preview: str | None = None
    try:
        for entry in sorted(entries_of(Path(here))):
            if entry.is_symlink() and _inside(str(entry), root) is None:
                found.skipped.append(Skipped(here, f"{entry.name} in it is a link out of it"))
                return
            if not entry.is_file():
                continue
            known = entry.stat()
            size += known.st_size
            stamps.update(f"{entry}\0{_stamp(known)}\n".encode("utf-8", "surrogateescape"))
            if preview is None and entry.parent == Path(here) and entry.suffix in PREVIEWS:
                preview = entry.name
    except OSError as error:
        found.skipped.append(Skipped(here, error.strerror or "cannot be read"))
        return
    facts = f"{here}/{FACTS}" if os.path.isfile(f"{here}/{FACTS}") else None
    found.units[here] = Unit(here, stamps.hexdigest(), size, True, facts, preview)


def _is_whole(listed: Listed, *, top: bool) -> bool:
    """Whether a folder is one model: a pipeline, a part of one, or an adapter with its encoder."""
    if "model_index.json" in listed:
        return True
    if top:
        return False
    if "config.json" in listed or "adapter_config.json" in listed:
        return any(_PART.fullmatch(name) for name in listed)
    return "image_encoder" in listed and any(name.endswith(".safetensors") for name in listed)


def _inside(path: str, root: Path) -> str | None:
    """Where a link leads to, unless that is out of the folder, to nothing, or in circles."""
    try:
        target = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return str(target) if target.is_relative_to(root) else None


def _stamp(known: os.stat_result) -> str:
    # without the number of the disk, which changes when it is mounted again
    return f"{known.st_ino}.{known.st_size}.{known.st_mtime_ns}.{known.st_ctime_ns}"
