"""The language in which people say what results are called: `{batch}/{prompt:40}-{number:04}`."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from string import Formatter

from pathvalidate import ValidationError, validate_filename

from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.exports.parts import BETWEEN, GAP, LONGEST_FOLDER, LONGEST_NAME, cut, part, plain
from safelight.settings import settings
from safelight.store.artifact import EXTENSIONS

FIELDS: Mapping[str, str] = {
    "name": "the source's name or the request's own, else prompt and seed",
    "source": "name of the file that it was made from, or the request's own",
    "folder": "folder of that file within a folder batch, with those above it",
    "number": "place of the request in its batch, from 1",
    "index": "place among the results of its run, from 1",
    "prompt": "as it was drawn",
    "negative_prompt": "as it was given",
    "choices": "words that took the place of choices and wildcards",
    "seed": "as it was given or drawn",
    "preset": "preset or other flow",
    "quality": "level of the preset",
    "model": "that drew it",
    "lora": "LoRAs, by name",
    "width": "in pixels",
    "height": "in pixels",
    "size": "width and height, 512x768",
    "batch": "key of the batch",
    "date": "when its run began, 2026-01-31; {date:%Y-%m} as strftime",
    "time": "when its run began, 235959",
    "run": "id of its run",
    "id": "sha256 of the file",
}
"""Each field to what it is; beside them every parameter of the flow, and `choices.NAME`."""
NUMBERS = ("number", "index", "seed", "width", "height")
MOMENTS = {"date": "%Y-%m-%d", "time": "%H%M%S"}
CHOICES = "choices."
LONGEST_TEMPLATE = 400
MOST_PARTS = 8
Value = str | int | float | datetime
_LENGTH = re.compile(r"[1-9]\d{0,2}")
_DIGITS = re.compile(r"0?([1-9]|1\d)")
_MOMENT = re.compile(r"(%[YmdHMSjVGuy]|[-_.T ])+")
_MISSING = "\0"
_FORBIDDEN = re.compile(r'[<>:"|?*\\]+')
"""What some system takes in no name; each run of it is one dash, and none at the end of a value."""
_BEFORE_MISSING = re.compile(rf"[-_., ]*{_MISSING}")
_ENDING = re.compile(rf"({'|'.join(map(re.escape, EXTENSIONS.values()))})$", re.IGNORECASE)


@dataclass(frozen=True)
class _Piece:
    literal: str
    field: str
    """Empty after the last literal."""
    form: str


@dataclass(frozen=True)
class Template:
    """A template that has been checked."""

    text: str
    """As it was written."""
    parts: tuple[tuple[_Piece, ...], ...]
    """Of each folder, and of the name."""

    @property
    def fields(self) -> frozenset[str]:
        """Names of all fields in it."""
        return frozenset(piece.field for pieces in self.parts for piece in pieces if piece.field)

    def fill(self, facts: Mapping[str, Value], otherwise: str) -> list[str]:
        """Folders and name of one result, without its ending.

        A field that has no value is left out with the dash before it, and a folder without a name.

        Args:
            facts: values by field.
            otherwise: the name where nothing else is left of it.
        """
        folders: list[str] = []
        for pieces in self.parts[:-1]:
            for each in _filled(pieces, facts, apart=True).split("/"):
                if name := part(each, LONGEST_FOLDER):
                    folders.append(name)
        name = part(_filled(self.parts[-1], facts, apart=False), LONGEST_NAME)
        return [*folders, name or otherwise]


def _filled(pieces: tuple[_Piece, ...], facts: Mapping[str, Value], *, apart: bool) -> str:
    """Text of one part; `apart` leaves the slashes of the field `folder`."""
    text = ""
    for piece in pieces:
        text += piece.literal
        if not piece.field:
            continue
        value = _written(piece, facts.get(piece.field))
        if not (apart and piece.field == "folder"):
            value = value.replace("/", "-").replace("\\", "-")
        text += _FORBIDDEN.sub(GAP, value).rstrip(BETWEEN) or _MISSING
    return _BEFORE_MISSING.sub("", text)


def _written(piece: _Piece, value: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime(piece.form or MOMENTS.get(piece.field, "%Y-%m-%d"))
    if isinstance(value, int) and piece.form:
        return str(value).zfill(int(piece.form)) if piece.form[0] == "0" else str(value)
    text = plain(str(value))
    return cut(text, int(piece.form)) if piece.form else text


def result_template(parameters: Collection[str] = ()) -> Template:
    """The template of the settings for folders, zips and downloads.

    Raises:
        PipelineError: as `parse` says.
    """
    return parse(settings().result_names, "SAFELIGHT_RESULT_NAMES", parameters)


@dataclass(frozen=True)
class _Written:
    """A template as somebody wrote it somewhere."""

    text: str
    where: str

    def refused(self, what: str, remedy: str = "") -> InvalidFieldValueError:
        return InvalidFieldValueError(
            f"{self.where} is {self.text[:120]!r}: {what}", remedy or f"correct {self.where}"
        )


def parse(text: str, where: str, parameters: Collection[str] = ()) -> Template:
    """Read a template, before anything is made that would be called by it.

    Args:
        text: as it was written.
        where: option, field or setting that holds it, for errors.
        parameters: further fields: names of what the flow takes.

    Raises:
        ContractMismatchError: a field is not known; says which was meant.
        InvalidFieldValueError: it is no template, or leads out of its folder.
    """
    written = _Written(text, where)
    if not 1 <= len(text) <= LONGEST_TEMPLATE:
        raise written.refused(f"it has {len(text)} characters, expected 1 to {LONGEST_TEMPLATE}")
    try:
        read = [*Formatter().parse(text)]
    except ValueError as error:
        raise written.refused(
            f"it is no template ({error})", f"correct {where}; write {{{{ for a brace itself"
        ) from error
    parts: list[list[_Piece]] = [[]]
    for literal, field, form, conversion in read:
        *before, last = literal.split("/")
        for each in before:
            parts[-1].append(_Piece(each, "", ""))
            parts.append([])
        if conversion is not None:
            raise written.refused(f"!{conversion} is no form")
        parts[-1].append(_Piece(last, field or "", form or ""))
        if field is not None:
            _check_field(field, form or "", where, parameters)
    if len(parts) > MOST_PARTS:
        raise written.refused(f"it has {len(parts)} parts, at most {MOST_PARTS} are taken")
    for pieces in parts:
        _check_part(pieces, written)
    last = parts[-1][-1]
    if not last.field and (ending := _ENDING.search(last.literal)):
        raise written.refused(
            f"it ends in {ending[0]}, and each file gets its own ending", f"leave out {ending[0]}"
        )
    return Template(text, tuple(tuple(pieces) for pieces in parts))


def _check_part(pieces: Sequence[_Piece], written: _Written) -> None:
    literals = "".join(piece.literal for piece in pieces).strip(" .")
    if not literals:
        if any(piece.field for piece in pieces):
            return
        raise written.refused(
            "a part between slashes is no name",
            f"begin and end {written.where} with no slash, and name no folder . or ..",
        )
    try:
        validate_filename(literals, platform="universal", check_reserved=False)
    except ValidationError as error:
        problem = f"{literals[:40]!r} is no part of a name: {error.description}"
        raise written.refused(problem) from error


def _check_field(field: str, form: str, where: str, parameters: Collection[str]) -> None:
    known = [*FIELDS, *(name for name in parameters if name not in FIELDS)]
    if field not in known and not (field.startswith(CHOICES) and field != CHOICES):
        near = get_close_matches(field.strip().casefold(), known, n=1)
        meant = f"; did you mean {{{near[0]}}}?" if near else ""
        raise ContractMismatchError(
            f"{where}: there is no field {{{field[:60]}}}{meant}",
            f"name fields that there are: {', '.join(known)}",
        )
    if not form:
        return
    if field in MOMENTS:
        good, expected = (
            _MOMENT.fullmatch(form),
            "%Y, %m, %d, %H, %M, %S, %j, %G, %V, dashes and dots",
        )
    elif field in NUMBERS:
        good, expected = _DIGITS.fullmatch(form), "digits to fill up to, as 04"
    else:
        good, expected = _LENGTH.fullmatch(form), "the most characters, 1 to 999"
    if not good:
        raise InvalidFieldValueError(
            f"{where}: {{{field}:{form[:40]}}} has the form {form[:40]!r}, expected {expected}",
            f"correct {{{field}}} in {where}",
        )
