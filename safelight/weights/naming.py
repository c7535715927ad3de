"""What models are called: the stem of the file, and the folders before it where others have it."""

import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NEAR = 5
"""Names that are like a wrong one."""


class Placed(NamedTuple):
    """A model that needs a name."""

    path: str
    """Absolute."""
    kind: str
    """Models of other kinds may have the same name."""
    given: str | None
    """What people called it."""


def stem_of(path: str, *, folder: bool) -> str:
    """What a model would be called if it were alone."""
    name = path.rpartition("/")[2]
    return name if folder else os.path.splitext(name)[0]


def names_for(models: Iterable[tuple[Placed, str]]) -> dict[str, str]:
    """A name for each path, which no other model of its kind has; the same whatever the order.

    The one that lies higher than all others of its stem has the stem alone, the others the folders
    before it that tell them apart, and where folders do not, the extension.

    Args:
        models: each with its stem.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for model, stem in models:
        if model.given is not None:
            names[model.path] = model.given
            taken.add((model.kind, model.given))
        else:
            groups[model.kind, stem].append(model.path)
    for (kind, stem), paths in groups.items():
        if len(paths) == 1 and (kind, stem) not in taken:
            names[paths[0]] = stem
            continue
        names.update(_apart(kind, stem, sorted(paths, key=_by_height), taken))
    return names


def _apart(
    kind: str, stem: str, paths: Sequence[str], taken: set[tuple[str, str]]
) -> dict[str, str]:
    found: dict[str, str] = {}
    first, height = paths[0], _height(paths[0])
    alone = all(_height(path) > height or _beside(path, first) for path in paths[1:])
    if alone and (kind, stem) not in taken:
        found[paths[0]] = stem
    for ending in (stem, None):  # with the extension where a file lies beside one of its stem
        for deep in range(1, max(map(_height, paths)) + 1):
            rest = [path for path in paths if path not in found]
            ends = {p: f"{_folders(p, deep)}/{ending or p.rpartition('/')[2]}" for p in rest}
            counts = Counter(ends.values())
            used = {*found.values(), *(name for of_kind, name in taken if of_kind == kind)}
            found.update(
                {p: name for p, name in ends.items() if counts[name] == 1 and name not in used}
            )
    return found


def _by_height(path: str) -> tuple[int, str]:
    return _height(path), path


def _height(path: str) -> int:
    return path.count("/")


def _beside(one: str, other: str) -> bool:
    return one.rpartition("/")[0] == other.rpartition("/")[0]


def _folders(path: str, deep: int) -> str:
    return "/".join(path.split("/")[:-1][-deep:])


def ends_with(path: str, name: str) -> bool:
    """Whether a name is the end of a path, with the extension or without it."""
    whole = f"/{name}"
    return path.endswith(whole) or os.path.splitext(path)[0].endswith(whole)


def near(name: str, known: Sequence[str]) -> list[str]:
    """Names that somebody may have meant."""
    lower = {each.lower(): each for each in known}
    wanted = name.lower()
    close = difflib.get_close_matches(wanted, lower, NEAR, 0.6)
    ends = [each for each in lower if wanted and each.rpartition("/")[2] == wanted]
    holds = [each for each in lower if len(wanted) > 2 and wanted in each]
    return [lower[each] for each in dict.fromkeys((*ends, *close, *holds))][:NEAR]
