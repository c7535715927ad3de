"""What stands for several values: a row of seeds, and a prompt with all of its combinations."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from flows.batching.reading.rows import Row
from safelight.errors import InvalidFieldValueError
from safelight.params import SEEDS, shown
from safelight.prompts.unfolded import PROMPTS
from safelight.prompts.unfolding import combinations, numbered, unfold
from safelight.prompts.wildcards import Wildcards, current_wildcards

SEED = "seed"
TOGETHER = "+"
"""Between the names of parameters that move together; their values are lists."""
EVERY = "every"
"""Key of the object that stands for all combinations of a prompt."""
_ROW = re.compile(r"\s*(\d{1,20})\s*\.\.\s*(\d{1,20})\s*")
LONGEST_LABEL = 400
"""Characters."""


@dataclass(frozen=True)
class Spread:
    """A request as it was written, or one of those that it stands for."""

    row: Row
    """With one seed."""
    number: int
    """Of the row it comes from, from 0."""
    several: bool = False
    """Whether it is one of several."""


def seeds_in(value: JsonValue, where: str, most: int) -> range | None:
    """The seeds that `10..19` names; None for anything else.

    Args:
        value: of a parameter.
        where: it stands, for messages.
        most: requests that there may be.

    Raises:
        InvalidFieldValueError: the first is larger than the last, a seed is too large, or they
            are too many.
    """
    written = _ROW.fullmatch(value) if isinstance(value, str) else None
    if written is None:
        return None
    first, last = int(written[1]), int(written[2])
    if not first <= last < SEEDS:
        raise InvalidFieldValueError(
            f"{where}: seed is {shown(value)}, expected FIRST..LAST, at most {SEEDS - 1}",
            "write the smaller seed first",
        )
    if last - first >= most:
        raise InvalidFieldValueError(
            f"{where}: seed is {shown(value)}, which are {last - first + 1}; a batch has at most "
            f"{most} requests",
            "name fewer seeds",
        )
    return range(first, last + 1)


def spread_rows(
    rows: Iterable[Row], shared: Mapping[str, JsonValue], most: int
) -> tuple[Iterator[Spread], dict[str, JsonValue]]:
    """Each row with one seed, where it or what all have in common names several.

    Args:
        rows: as they were written.
        shared: parameters of every request; a row's own win.
        most: requests that there may be.

    Returns:
        The rows, as they are read, and what they have in common besides.

    Raises:
        InvalidFieldValueError: as `seeds_in` says, or, as they are read, there are too many.
    """
    common = seeds_in(shared.get(SEED), "parameters", most)
    rest = {name: value for name, value in shared.items() if common is None or name != SEED}
    if isinstance(rows, Sequence):  # refused before any is checked
        for _ in _with_seeds(rows, common, most):
            pass
    return _spread(rows, common, most), rest


def _spread(rows: Iterable[Row], common: range | None, most: int) -> Iterator[Spread]:
    for number, (row, seeds) in enumerate(_with_seeds(rows, common, most)):
        if seeds is None:
            yield Spread(row, number)
        for seed in seeds or ():
            yield Spread(
                Row(f"{row.where} seed {seed}", {**row.values, SEED: seed}, text=row.text),
                number,
                several=True,
            )


def _with_seeds(
    rows: Iterable[Row], common: range | None, most: int
) -> Iterator[tuple[Row, range | None]]:
    found = 0
    for row in rows:
        own = seeds_in(row.values.get(SEED), row.where, most)
        seeds = own if SEED in row.values and row.values[SEED] is not None else common
        found += 1 if seeds is None else len(seeds)
        if found > most:
            told = "" if seeds is None else "with its seeds "
            raise InvalidFieldValueError(
                f"{row.where}: {told}the batch has more than {most} requests",
                "split it into several batches",
            )
        yield row, seeds


def with_seed_axis(
    grid: Mapping[str, list[JsonValue]], shared: Mapping[str, JsonValue]
) -> tuple[dict[str, list[JsonValue]], dict[str, JsonValue]]:
    """A grid in which a row of seeds of all cells is an axis, and what cells have in common else.

    An axis of seeds that is there counts instead, as a cell's own values do.

    Args:
        grid: axis to its values.
        shared: parameters of every cell.
    """
    row = shared.get(SEED)
    if not (isinstance(row, str) and _ROW.fullmatch(row)):
        return dict(grid), dict(shared)
    rest = {name: value for name, value in shared.items() if name != SEED}
    if any(SEED in name.split(TOGETHER) for name in grid):
        return dict(grid), rest
    return {**grid, SEED: [row]}, rest


def spread_axes(grid: Mapping[str, Sequence[JsonValue]], most: int) -> dict[str, list[JsonValue]]:
    """A grid whose axes name every value by itself.

    `"10..19"` is ten seeds, and `{"every": "a {red|blue} heart"}` all combinations of a prompt.

    Args:
        grid: as it was written.
        most: cells that there may be.

    Raises:
        PipelineError: too many, or a prompt that is refused.
    """
    wildcards = current_wildcards()
    return {name: [*_values(name, axis, most, wildcards)] for name, axis in grid.items()}


def _values(
    name: str, axis: Sequence[JsonValue], most: int, wildcards: Wildcards
) -> Iterator[JsonValue]:
    for value in axis:
        seeds = seeds_in(value, f"grid.{name}", most) if name == SEED else None
        if seeds is not None:
            yield from seeds
        elif isinstance(value, dict) and value.keys() == {EVERY} and name in PROMPTS:
            yield from _combined(name, cast("JsonValue", value[EVERY]), most, wildcards)
        else:
            yield value


def _combined(name: str, prompt: JsonValue, most: int, wildcards: Wildcards) -> Iterator[JsonValue]:
    where = f"grid.{name}"
    if not isinstance(prompt, str):
        raise InvalidFieldValueError(
            f"{where}: every is {shown(prompt)}, expected a prompt", f"correct {where}"
        )
    count = combinations(where, prompt, wildcards)
    if count > most:
        raise InvalidFieldValueError(
            f"{where}: the prompt has {count} combinations, a grid at most {most} cells",
            "leave choices out, or have the seed draw them",
        )
    for number in range(1, count + 1):
        yield numbered(prompt, number)


def label_of(name: str, value: str) -> str:
    """A prompt on an axis as a sheet shows it: the words of a combination, else as it is."""
    if name not in PROMPTS or not value.startswith("{#"):
        return value
    unfolded = unfold(name, value, 0, current_wildcards())
    return value if unfolded is None else unfolded.text[:LONGEST_LABEL]
