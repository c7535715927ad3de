"""Words of a search: `model:`, `seed:` and their like narrow down, others are found in prompts."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches

from safelight.errors import InvalidFieldValueError
from safelight.gallery.index import Index
from safelight.gallery.rows import Filed

PAGE = 100
"""Files of one page."""
LONGEST = 500
"""Characters of a search."""
_WORD = re.compile(r'(-?)(?:([a-z]+):)?(?:"([^"]*)"|(\S+))')
_SINCE = re.compile(r"(\d{1,5})([hdwm])")
_SPANS = {"h": 3600, "d": 86400, "w": 7 * 86400, "m": 30 * 86400}
_SIZE = re.compile(r"(>|<)?(\d{1,6})(?:x(\d{1,6}))?")
_RATING = re.compile(r"(?:(>|<)?([1-5])|(none|rejected))")
Condition = tuple[str, list[object]]


@dataclass(frozen=True)
class Search:
    """What is looked for."""

    where: str
    """Condition of SQL, made of our own words alone."""
    values: tuple[object, ...]
    """Those of the person."""


@dataclass(frozen=True)
class Page:
    """Some of what was found."""

    files: list[Filed]
    next: str | None
    """Names the next page; None on the last one."""
    many: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of how many files those stand for, by sha256, where stacks were asked for."""


def parse(text: str, *, steps: bool = False) -> Search:
    """Read a search.

    Args:
        text: as it was typed.
        steps: also what stages made on the way, beside the results.

    Raises:
        InvalidFieldValueError: a word before a colon is none of ours, or its value is none.
    """
    if len(text) > LONGEST:
        raise InvalidFieldValueError(
            f"the search has {len(text)} characters, at most {LONGEST} are read", "shorten it"
        )
    parts: list[str] = [] if steps else ["result = 1"]
    values: list[object] = []
    for minus, name, quoted, plain in _WORD.findall(text):
        wanted = quoted or plain
        if name and name not in WORDS:
            near = get_close_matches(name, WORDS, n=1)
            meant = f"; did you mean {near[0]}:?" if near else ""
            raise InvalidFieldValueError(
                f"there is no search word {name}:{meant}",
                f"use one of {', '.join(f'{word}:' for word in WORDS)}, or quote it",
            )
        said, given = WORDS[name](wanted) if name else _text(wanted)
        parts.append(f"NOT ({said})" if minus else said)
        values += given
    return Search(" AND ".join(parts) or "1", tuple(values))


def found(index: Index, search: Search, cursor: str | None, *, stacked: bool = False) -> Page:
    """One page of what a search finds, the newest first.

    Args:
        index: where it looks.
        search: what for.
        cursor: of an earlier page.
        stacked: only the newest of those that one prompt drew.

    Raises:
        InvalidFieldValueError: no page gave this cursor.
    """
    if stacked:
        return _stacks(index, search, cursor)
    where, values = search.where, list(search.values)
    if cursor is not None:
        at, sha256 = _read(cursor)
        where += " AND (at, sha256) < (?, ?)"
        values += [at, sha256]
    files = index.select(where, values, PAGE + 1)
    more = len(files) > PAGE
    files = files[:PAGE]
    return Page(files, f"{files[-1].at!r}_{files[-1].sha256}" if more else None)


def _stacks(index: Index, search: Search, cursor: str | None) -> Page:
    after = () if cursor is None else _read(cursor)
    stacks = index.stacked(search.where, search.values, PAGE + 1, after)
    shown = [filed for filed, _ in stacks[:PAGE]]
    last = f"{shown[-1].at!r}_{shown[-1].sha256}" if len(stacks) > PAGE else None
    return Page(shown, last, {filed.sha256: many for filed, many in stacks if many > 1})


def beside(index: Index, search: Search, filed: Filed) -> tuple[Filed | None, Filed | None]:
    """The files before and after one in what a search finds; None at its ends."""
    here: list[object] = [*search.values, filed.at, filed.sha256]
    newer, older = (f"{search.where} AND (at, sha256) {sign} (?, ?)" for sign in (">", "<"))
    before = index.select(newer, here, 1, oldest_first=True)
    after = index.select(older, here, 1)
    return (before[0] if before else None), (after[0] if after else None)


def place_of(index: Index, search: Search, filed: Filed) -> int:
    """Where a file stands in what a search finds, from 1."""
    newer = f"{search.where} AND (at, sha256) > (?, ?)"
    return 1 + index.count(newer, [*search.values, filed.at, filed.sha256])


def cursor_to(filed: Filed) -> str:
    """The cursor of the page that begins with a file."""
    return f"{filed.at!r}_{filed.sha256}~"


def _read(cursor: str) -> tuple[float, str]:
    at, _, sha256 = cursor.partition("_")
    try:
        return float(at), sha256
    except ValueError as error:
        raise InvalidFieldValueError(
            f"cursor is {cursor[:80]!r}, which no page gave", "take that of a page"
        ) from error


def _like(value: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", value.casefold())
    return f"%{escaped}%"


def _text(value: str) -> Condition:
    return "words LIKE ? ESCAPE '\\'", [_like(value)]


def _in(column: str) -> Callable[[str], Condition]:
    return lambda value: (f"{column} LIKE ? ESCAPE '\\'", [_like(value)])


def _seed(value: str) -> Condition:
    return "seed = ?", [value]


def _among(column: str, known: Sequence[str]) -> Callable[[str], Condition]:
    def condition(value: str) -> Condition:
        if value.casefold() not in known:
            raise InvalidFieldValueError(
                f"{column} is {value[:80]!r}, expected one of {', '.join(known)}",
                f"correct {column}:",
            )
        return f"{column} = ?", [value.casefold()]

    return condition


def _size(value: str) -> Condition:
    """`512x512` is that size; `>1024` and `<512` compare the longer side."""
    given = _SIZE.fullmatch(value)
    if given is None or (given[1] and given[3]) or not (given[1] or given[3]):
        raise InvalidFieldValueError(
            f"size is {value[:80]!r}, expected 512x512, >1024 or <512", "correct size:"
        )
    if given[3]:
        return "width = ? AND height = ?", [int(given[2]), int(given[3])]
    return f"max(width, height) {given[1]} ?", [int(given[2])]


def _since(value: str) -> Condition:
    """`2026-11-28`, or a time back from now: `12h`, `3d`, `2w`, `1m`; also `today`."""
    span = _SINCE.fullmatch(value)
    if span:
        return "at >= ?", [time.time() - int(span[1]) * _SPANS[span[2]]]
    today = datetime.now(UTC).date().isoformat()
    try:
        day = datetime.fromisoformat(today if value == "today" else value)
    except ValueError as error:
        raise InvalidFieldValueError(
            f"since is {value[:80]!r}, expected a day such as {today}, or 12h, 3d, 2w, 1m",
            "correct since:",
        ) from error
    return "at >= ?", [day.astimezone(day.tzinfo or UTC).timestamp()]


def _kept(value: str) -> Condition:
    return "star = ?", [value.casefold() in ("yes", "1", "true")]


def _rating(value: str) -> Condition:
    """`4`; `>3` and `<3` of those that are rated; `none`, `rejected`."""
    words = {"none": 0, "rejected": -1}
    given = _RATING.fullmatch(value.casefold())
    if given is None:
        raise InvalidFieldValueError(
            f"rating is {value[:80]!r}, expected 1 to 5, >3, <3, none or rejected",
            "correct rating:",
        )
    if given[1]:
        return f"rating > 0 AND rating {given[1]} ?", [int(given[2])]
    number = given[2] or given[3]
    return "rating = ?", [words[number] if number in words else int(number)]


def _stack(value: str) -> Condition:
    return "stack = ?", [value]


WORDS: dict[str, Callable[[str], Condition]] = {
    "model": _in("model"),
    "seed": _seed,
    "lora": _in("loras"),
    "size": _size,
    "state": _among("state", ("done", "failed")),
    "by": _in("consent_by"),
    "since": _since,
    "character": _in("character"),
    "preset": _in("flow"),
    "kind": _among("kind", ("image", "video", "audio", "text", "other")),
    "stage": _in("stage"),
    "run": _in("run"),
    "kept": _kept,
    "rating": _rating,
    "stack": _stack,
}
"""What may stand before a colon."""
