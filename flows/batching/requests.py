"""The requests of a batch: from a file, a list or a grid, all checked before any runs."""

import hashlib
import importlib
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, cast

from pydantic import BaseModel, JsonValue, ValidationError

import flows
from flows.batching.axes import cell_values
from flows.batching.reading.json_requests import value_of
from flows.batching.reading.rows import Row, all_refused
from flows.batching.spreading import spread_rows
from flows.running.checking import RecordedFlow
from flows.running.graphs import pinned
from flows.running.prompts import check_prompts, unfolded
from flows.running.signature import parameters_model
from safelight.client.contracts import module_of
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    PipelineError,
)
from safelight.params import refusal, refuse_unkept
from safelight.prompts.wildcards import current_wildcards
from safelight.workflows.files import flow_names, workflow_of

MOST_REQUESTS = 100_000
"""Each leaves a manifest and a row of a table that people look at."""
MOST_BYTES = 512 * 1024
"""Of a request's parameters as JSON: a Prefect server takes no more."""
NOT_FOR_BATCHES = ("batch", "shard", "watch")


@dataclass(frozen=True)
class Request:
    """One request that the target flow has accepted."""

    number: int
    """From 1, in the order of the file or grid."""
    where: str
    """How an error names it."""
    parameters: dict[str, JsonValue]
    """As the run gets them."""
    digest: str
    """Of flow and parameters, the same wherever the request stands."""
    occurrence: int
    """How many equal requests stand before it."""
    place: tuple[int, ...] = field(default=())
    """In a grid: position on each axis."""
    row: int = 0
    """From 0: which of those that were read it comes from."""
    spread: bool = False
    """Whether its row names several seeds, and this is one of them."""

    @property
    def identity(self) -> str:
        """Names the request within its batch, also after others were added or removed."""
        return f"{self.digest[:24]}-{self.occurrence}"


def target_names() -> tuple[str, ...]:
    """Names of all flows that a batch can run."""
    names = (module.name for module in pkgutil.iter_modules(flows.__path__))
    ours = sorted(name for name in names if _flow_in(name) is not None)
    return (*ours, *flow_names())


def find_target(name: str) -> RecordedFlow[...]:
    """The flow of that name.

    Raises:
        ContractMismatchError: there is none, or it is the batch itself.
    """
    own = {module.name for module in pkgutil.iter_modules(flows.__path__)}
    known = name in own or workflow_of(name) is not None
    found = _flow_in(name) if known else None
    if found is None:
        raise ContractMismatchError(
            f"flow is {name!r}; a batch can run {', '.join(target_names())}", "correct flow"
        )
    return found


def _flow_in(name: str) -> RecordedFlow[...] | None:
    if name in NOT_FOR_BATCHES:
        return None
    found = getattr(importlib.import_module(module_of(name)), name, None)
    return found if isinstance(found, RecordedFlow) else None


def listed(values: Sequence[Mapping[str, JsonValue]]) -> list[Row]:
    """Requests that the caller gave as a list."""
    return [Row(f"request {n}", dict(given)) for n, given in enumerate(values, 1)]


def grid_rows(
    grid: Mapping[str, Sequence[JsonValue]], shared: Mapping[str, JsonValue] | None = None
) -> list[Row]:
    """Every combination of the values on each axis, the last axis changing fastest.

    Args:
        grid: axis to its values, see `cell_values`.
        shared: parameters of every cell, whose prompt and LoRAs axes may change.

    Raises:
        InvalidFieldValueError: no axis, an axis without values, or too many combinations.
        PipelineError: as `cell_values` says.
    """
    if not grid:
        raise InvalidFieldValueError("grid has no axis", "give grid at least one list of values")
    for name, values in grid.items():
        if not values:
            raise InvalidFieldValueError(f"grid.{name} is empty", f"give grid.{name} a value")
    _check_count(math.prod(len(values) for values in grid.values()))
    places = product(*(range(len(values)) for values in grid.values()))
    return [
        Row(
            f"cell {number}",
            cell_values(
                {name: grid[name][at] for name, at in zip(grid, place, strict=True)},
                grid,
                f"cell {number}",
                shared or {},
            ),
            place,
        )
        for number, place in enumerate(places, 1)
    ]


def check_requests(
    target: RecordedFlow[...], rows: Sequence[Row], shared: Mapping[str, JsonValue]
) -> list[Request]:
    """All requests that `checked_requests` gives.

    Raises:
        PipelineError: as it says.
    """
    _check_count(len(rows))
    return [*checked_requests(target, rows, shared)]


def checked_requests(
    target: RecordedFlow[...], rows: Iterable[Row], shared: Mapping[str, JsonValue]
) -> Iterator[Request]:
    """Check all requests with the target's own types, before any of them runs.

    Args:
        target: the flow that will run them.
        rows: the requests.
        shared: parameters of every request; a request's own win.

    Raises:
        PipelineError: what is wrong with the first bad request, by its line, and which others are;
            once the last is read.
    """
    model = parameters_model(target.fn)
    shared = {**pinned(target), **shared}
    textual = _textual_fields(model)
    seen: Counter[bytes] = Counter()
    number = 0
    refused: list[tuple[str, PipelineError]] = []
    spread, shared = spread_rows(rows, shared, MOST_REQUESTS)
    for number, one in enumerate(spread, 1):
        row = one.row
        try:
            own = _meant(row, textual) if row.text else row.values
            parameters = _accepted(model, {**shared, **own}, f"{row.where}: {target.name}")
        except PipelineError as error:
            refused.append((row.where, refused[0][1] if refused else error))
            continue
        digest = _digest(target.name, parameters)
        short = bytes.fromhex(digest)[:12]
        yield Request(
            number,
            row.where,
            parameters,
            digest,
            seen[short],
            row.place,
            one.number,
            one.several,
        )
        seen[short] += 1
    if refused:
        raise all_refused(refused)
    _check_count(number)


def check_words(requests: Iterable[Request]) -> None:
    """Unfold the prompts of all requests once, by the seeds that they have.

    Raises:
        PipelineError: what is wrong with the first that does not, and which others do not.
    """
    wildcards = current_wildcards()
    refused: list[tuple[str, PipelineError]] = []
    for request in requests:
        try:
            unfolded(request.parameters, wildcards)
        except PipelineError as error:
            told = type(error)(f"{request.where}: {error.problem}", error.remedy)
            refused.append((request.where, refused[0][1] if refused else told))
    if refused:
        raise all_refused(refused)


def sorted_digest(identities: Iterable[str]) -> str:
    """Names a batch by what it asks for.

    Args:
        identities: of its requests, sorted, so that their order does not matter.
    """
    digest = hashlib.sha256()
    for place, identity in enumerate(identities):
        digest.update((f"\n{identity}" if place else identity).encode())
    return digest.hexdigest()[:24]


def seeded(request: Request, name: str) -> Request:
    """With a seed of its own where none was given; every cell of a grid has the same.

    A retry of the request then draws the same picture and finds its finished stages.
    """
    if request.parameters.get("seed") is not None:
        return request
    source = name if request.place else f"{name}:{request.identity}"
    seed = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big")
    return replace(request, parameters={**request.parameters, "seed": seed})


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_REQUESTS:
        raise InvalidFieldValueError(
            f"the batch has {count} requests, expected 1 to {MOST_REQUESTS}",
            "split it into several batches" if count else "give it a request",
        )


def _accepted(
    model: type[BaseModel], values: Mapping[str, JsonValue], where: str
) -> dict[str, JsonValue]:
    try:
        filled = model.model_validate(dict(values))
    except ValidationError as error:
        raise refusal(error, where) from error
    parameters = filled.model_dump(mode="json", exclude_unset=True)
    refuse_unkept(parameters, where)
    check_prompts(parameters)
    size = len(json.dumps(parameters))
    if size > MOST_BYTES:
        raise InvalidFieldValueError(
            f"{where}: its parameters have {size} bytes, at most {MOST_BYTES} are kept",
            "shorten them",
        )
    return parameters


def _digest(flow: str, parameters: Mapping[str, JsonValue]) -> str:
    canonical = json.dumps([flow, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _meant(row: Row, textual: frozenset[str]) -> dict[str, JsonValue]:
    """Cells of fields that take no text may hold JSON lists and objects."""
    return {
        name: _structured(row.where, name, cell)
        if name not in textual and isinstance(cell, str)  # one of several seeds is none
        else cell
        for name, cell in row.values.items()
    }


def _structured(where: str, name: str, cell: str) -> JsonValue:
    if cell[:1] not in ("{", "["):
        return cell
    return value_of(cell, f"{where}: field {name}", f"correct {name}")


def _textual_fields(model: type[BaseModel]) -> frozenset[str]:
    properties = cast("dict[str, dict[str, Any]]", model.model_json_schema().get("properties", {}))
    return frozenset(
        name
        for name, schema in properties.items()
        if any(part.get("type") == "string" for part in (schema, *schema.get("anyOf", ())))
    )
