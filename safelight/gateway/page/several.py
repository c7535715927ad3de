"""Several runs from one form of Create: axes of a grid, or a table, as a batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import JsonValue

from safelight.client.requests import (
    axis_values,
    checked_grid,
    checked_rows,
    is_parameter,
    table_rows,
)
from safelight.errors import PipelineError
from safelight.gateway.page.forms import Field, Form, Option, text_of
from safelight.gateway.page.reading import read_field
from safelight.gateway.page.words import label, say
from safelight.gateway.workflows import check

PREFIX = "many."
"""How the names of its fields begin."""
PLACES = ("x", "y", "z")
TABLE = f"{PREFIX}table"
KINDS = ("prompt", "text", "number", "seed", "switch", "choice", "model", "character")
"""Fields whose values can stand on an axis."""
WORDS_OF_THE_PROMPT = "replace"
BATCH = "batch"


@dataclass(frozen=True)
class Axis:
    """One of them, as it was typed."""

    place: str
    """x, y or z."""
    name: str
    """What changes."""
    values: str

    @property
    def field(self) -> str:
        """Name of the field of its values."""
        return f"{PREFIX}{self.place}.values"


@dataclass(frozen=True)
class Several:
    """What the form says of them."""

    axes: tuple[Axis, ...]
    """All places, those that are empty too."""
    table: str
    """`store:` link; empty where there is none."""

    @property
    def asked(self) -> bool:
        """Whether more than one run is wanted."""
        return bool(self.table) or any(axis.name or axis.values for axis in self.axes)

    @property
    def present(self) -> str:
        """For the closed group."""
        if self.table:
            return say("many.by_table")
        told = [f"{label(axis.name)} {axis.values}" for axis in self.axes if axis.name]
        return ", ".join(told)


@dataclass(frozen=True)
class Asked:
    """A batch that may be submitted, or what is wrong with it."""

    parameters: dict[str, JsonValue]
    """Of the flow `batch`."""
    count: int
    """Runs."""
    wrong: dict[str, str]
    """By the names of fields."""
    error: PipelineError | None = None
    """Of a request, to be placed beside the field that it names."""


def several_in(values: Mapping[str, str]) -> Several:
    """What the text of a form says."""
    axes = tuple(
        Axis(
            place,
            values.get(f"{PREFIX}{place}", "").strip(),
            values.get(f"{PREFIX}{place}.values", "").strip(),
        )
        for place in PLACES
    )
    return Several(axes, values.get(TABLE, "").strip())


def without_several(values: Mapping[str, str]) -> dict[str, str]:
    """The fields of a single run."""
    own = {*(f"{PREFIX}{place}{end}" for place in PLACES for end in ("", ".values")), TABLE}
    return {name: text for name, text in values.items() if name not in own}


def options_of(form: Form) -> Iterator[Option]:
    """What can stand on an axis of this form's runs."""
    for field in form.fields:
        if field.kind in KINDS and "." not in field.name:
            yield Option(field.name, label(field.name))
    if any(field.kind == "prompt" for field in form.fields):
        yield Option(WORDS_OF_THE_PROMPT, say("many.words"))


def read_several(
    form: Form,
    wanted: Several,
    parameters: Mapping[str, JsonValue],
    wrong: Mapping[str, str],
    *,
    thorough: bool,
) -> Asked:
    """The batch that a form asks for.

    Args:
        form: of a single run.
        wanted: what the form says of them.
        parameters: of all runs.
        wrong: with the form of a single run.
        thorough: whether each row of a table is checked too; cells of a grid always are.
    """
    flow, whole = form.workflow, dict(parameters)
    if wanted.table:
        if any(axis.name or axis.values for axis in wanted.axes):
            return Asked({}, 0, {TABLE: say("many.either")})
        # its columns may give what the form has not
        left = {name: said for name, said in wrong.items() if said != say("wrong.missing")}
        if left:
            return Asked({}, 0, left)
        asked: dict[str, JsonValue] = {"flow": flow, "file": wanted.table, "parameters": whole}
        try:
            check(BATCH, asked)
            if thorough:
                count = checked_rows(flow, table_rows(flow, wanted.table), whole)
            else:
                count = _rows(flow, wanted.table)
        except PipelineError as error:
            return Asked({}, 0, {}, error)
        return Asked(asked, count, {})
    grid, left = _grid(wanted, form.by_name)
    left |= {name: said for name, said in wrong.items() if name not in grid}
    if left:
        return Asked({}, 0, left)
    places: dict[str, JsonValue] = {axis.place: axis.name for axis in wanted.axes if axis.name}
    try:
        checked = checked_grid(flow, grid, whole)
        axes: dict[str, JsonValue] = {name: [*values] for name, values in checked.grid.items()}
        asked = {"flow": flow, "grid": axes, "parameters": checked.shared, **places}
        check(BATCH, asked)
    except PipelineError as error:
        return Asked({}, 0, {}, error)
    return Asked(asked, len(checked.requests), {})


def _grid(
    wanted: Several, fields: Mapping[str, Field]
) -> tuple[dict[str, list[JsonValue]], dict[str, str]]:
    """The axes, and what is wrong with them."""
    grid: dict[str, list[JsonValue]] = {}
    wrong: dict[str, str] = {}
    for axis in wanted.axes:
        if not axis.name and not axis.values:
            continue
        if not axis.name:
            wrong[f"{PREFIX}{axis.place}"] = say("many.which")
        elif axis.name in grid:
            wrong[f"{PREFIX}{axis.place}"] = say("many.twice")
        elif not axis.values:
            wrong[axis.field] = say("wrong.missing")
        else:
            try:
                grid[axis.name] = axis_values(axis.name, axis.values)
            except PipelineError as error:
                wrong[axis.field] = f"{error.problem}. {say('wrong.fix', remedy=error.remedy)}"
                continue
            said = _first_wrong(fields.get(axis.name), grid[axis.name])
            if said:
                wrong[axis.field] = said
    return grid, wrong


def _first_wrong(field: Field | None, values: Sequence[JsonValue]) -> str:
    """What a field of a single run would say of the first value that it does not take."""
    if field is None:
        return ""
    for value in values:
        if isinstance(value, str) and not (field.kind == "seed" and ".." in value):
            _, said = read_field(replace(field, value=value))
            if said:
                return said
    return ""


@lru_cache(maxsize=64)
def _rows(flow: str, link: str) -> int:
    """A stored table never changes."""
    return sum(1 for _ in table_rows(flow, link))


def field_of_axis(wanted: Several, name: str) -> str:
    """The field beside which an error about a parameter stands: that of its axis, or the table."""
    if wanted.table:
        return TABLE
    return next((axis.field for axis in wanted.axes if axis.name == name), name)


def typed_several(batch: Mapping[str, JsonValue]) -> dict[str, str] | None:
    """Parameters of a batch as text of a form; None where a form does not say it all.

    Args:
        batch: of the flow `batch`.
    """
    if (file := batch.get("file")) is not None:
        return {TABLE: str(file)} if str(file).startswith("store:") else None
    grid = batch.get("grid")
    if not isinstance(grid, dict) or not 0 < len(grid) <= len(PLACES):
        return None
    free = [place for place in PLACES if batch.get(place) not in grid]
    told: dict[str, str] = {}
    for name, values in grid.items():
        place = next((p for p in PLACES if batch.get(p) == name), None) or free.pop(0)
        texts = [text_of(value) for value in values] if isinstance(values, list) else []
        if not texts or not _plain(name, values):
            return None
        quoted = (f'"{text}"' if "," in text else text for text in texts)
        told |= {f"{PREFIX}{place}": name, f"{PREFIX}{place}.values": ", ".join(quoted)}
    return told


def _plain(name: str, values: JsonValue) -> bool:
    """Whether an axis can be chosen on the page, and its values typed."""
    if not isinstance(values, list) or (name != WORDS_OF_THE_PROMPT and not is_parameter(name)):
        return False
    return "+" not in name and not any(
        isinstance(value, dict | list) or (isinstance(value, str) and '"' in value)
        for value in values
    )
