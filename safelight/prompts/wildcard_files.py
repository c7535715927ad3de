"""What files of wildcards hold: a value a line in texts, lists under names in YAML and JSON."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

from safelight.errors import InvalidFieldValueError
from safelight.prompts.grammar import FINEST, HEAVIEST

LONGEST_VALUE = 8000
"""Characters."""
MOST_VALUES = 200_000
"""Of one file."""
DEEPEST = 16
"""Names within one another."""
STRUCTURED = frozenset({".yaml", ".yml", ".json"})
ENDINGS = STRUCTURED | {".txt"}
_WEIGHT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)::")
_COMMENT = re.compile(r"^\s*#.*$|\s#(?:\s.*)?$")
_TEXTS = ("text", "content")
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # where PyYAML has no C, Python reads


class BadWildcardError(InvalidFieldValueError):
    """A file of wildcards cannot be read."""


@dataclass(frozen=True)
class Value:
    """One thing that a wildcard may stand for."""

    text: str
    """A prompt itself."""
    weight: Decimal = Decimal(1)
    """How often it is taken, beside the others'."""
    where: str = ""
    """File and line or entry."""


def values_of_text(text: str, file: str) -> Iterator[Value]:
    """A value a line; empty ones, those that begin with `#`, and what follows ` # ` take no part.

    Args:
        text: of the file.
        file: its name, for messages.

    Raises:
        BadWildcardError: a value or weight is outside its limits, or there are too many.
    """
    for number, line in enumerate(text.splitlines(), 1):
        said = _COMMENT.sub("", line).strip()
        if said:
            yield _value(said, f"{file} line {number}")


def values_of_structure(text: str, file: str, stem: str) -> dict[str, list[Value]]:
    """The lists of a YAML or JSON file by their names, the names around them before a slash.

    A list without a name has that of the file.

    Args:
        text: of the file.
        file: its name, for messages.
        stem: its name without folder and ending.

    Raises:
        BadWildcardError: no YAML, aliases, too much or too deep.
    """
    try:
        if file.lower().endswith(".json"):  # YAML has other escapes, and no tabs
            text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
        reader = _Structure(text, file)
        reader.read(stem)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise BadWildcardError(f"{file} cannot be read: {told}", f"correct {file}") from error
    return reader.found


class _Structure:
    """Goes through the events of a document: nothing is built that a small file makes huge."""

    def __init__(self, text: str, file: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._file = file
        self._count = 0
        self.found: dict[str, list[Value]] = {}

    def read(self, stem: str) -> None:
        event = next(self._events)
        while not isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.StreamEndEvent):
                return
            event = next(self._events)
        if isinstance(event, yaml.MappingStartEvent):
            self._mapping(())
        elif isinstance(event, yaml.SequenceStartEvent):
            self._sequence((stem,))
        else:
            raise self._wrong(event, "a list or names with lists are expected")

    def _mapping(self, names: tuple[str, ...]) -> None:
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or len(names) >= DEEPEST:
                raise self._wrong(key, f"a name is expected, at most {DEEPEST} within one another")
            here = (*names, *(part for part in key.value.split("/") if part))
            value = next(self._events)
            if isinstance(value, yaml.MappingStartEvent):
                self._mapping(here)
            elif isinstance(value, yaml.SequenceStartEvent):
                self._sequence(here)
            else:
                self._keep(here, value, self._scalar(value))

    def _sequence(self, names: tuple[str, ...]) -> None:
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            if isinstance(item, yaml.MappingStartEvent):
                self._keep(names, item, *self._weighted(item))
            else:
                self._keep(names, item, self._scalar(item))

    def _weighted(self, start: Any) -> tuple[str, str]:  # noqa: ANN401
        """`{text: red, weight: 3}`, and `- red: 3` for the same."""
        given: dict[str, str] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            given[self._scalar(key)] = self._scalar(next(self._events))
        text = next((given[name] for name in _TEXTS if name in given), None)
        if text is None or not given.keys() <= {*_TEXTS, "weight"}:
            raise self._wrong(start, f"an entry has {', '.join(given)}, expected text and weight")
        return text, given.get("weight", "1")

    def _scalar(self, event: Any) -> str:  # noqa: ANN401
        if not isinstance(event, yaml.ScalarEvent):
            alias = isinstance(event, yaml.AliasEvent)
            raise self._wrong(event, "an alias" if alias else "text is expected here")
        return str(event.value)

    def _keep(self, names: tuple[str, ...], event: Any, text: str, weight: str = "") -> None:  # noqa: ANN401
        lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
        text = " ".join(line for line in lines if line)
        if not text:
            return
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._wrong(event, f"more than {MOST_VALUES} values")
        where = f"{self._file} line {event.start_mark.line + 1}"
        value = _value(f"{weight}::{text}" if weight else text, where, needs_weight=bool(weight))
        self.found.setdefault("/".join(names), []).append(value)

    def _wrong(self, event: Any, what: str) -> BadWildcardError:  # noqa: ANN401
        line = event.start_mark.line + 1
        return BadWildcardError(f"{self._file} line {line}: {what}", f"correct {self._file}")


def _value(said: str, where: str, *, needs_weight: bool = False) -> Value:
    weighed = _WEIGHT.match(said)
    weight, text = (Decimal(weighed[1]), said[weighed.end() :]) if weighed else (Decimal(1), said)
    digits = weight.as_tuple().exponent
    if (
        weight > HEAVIEST
        or (isinstance(digits, int) and -digits > FINEST)
        or (needs_weight and not weighed)
    ):
        raise BadWildcardError(
            f"{where}: the weight of {said[:40]!r} is not from 0 to {HEAVIEST} with at most "
            f"{FINEST} digits after the point",
            "correct the weight",
        )
    if len(text) > LONGEST_VALUE:
        raise BadWildcardError(
            f"{where} has {len(text)} characters, a value has at most {LONGEST_VALUE}", "shorten it"
        )
    return Value(text.strip(), weight, where)
