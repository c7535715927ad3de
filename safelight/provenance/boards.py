"""A batch while it runs: its axes, and what each request has come to so far, for who watches it."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from safelight.errors import MissingFileError
from safelight.provenance.batches import PART, BatchOutcome, Tally
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Store, current_store

BOARDS = "cache/boards/"
"""Of the store's keys: without it the grid of a batch that has ended is laid out by manifests."""
LONGEST_AXIS = 40
"""Values; a parameter that has more is no axis, unless a grid names it as one."""
LONGEST_CAPTION = 80
"""Characters."""
PAGE = PART
"""Requests of a page, of a batch of very many."""
CellState = Literal["waits", "running", "succeeded", "failed", "crashed", "cancelled"]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Axis(_Frozen):
    """What differs between the requests of a batch."""

    name: str
    """Of a parameter, or of what a grid changes."""
    values: tuple[str, ...]
    """As text, in their order."""


class BoardCell(_Frozen):
    """One request."""

    number: int
    """From 1."""
    where: str
    """Line, request or cell."""
    caption: str = ""
    """What tells it from others, where no axis does."""
    place: tuple[int, ...] = ()
    """Position on each axis."""
    state: CellState = "waits"
    change: int = 0
    """Number of its latest change: who knows the board up to another needs only later ones."""
    flow_run_id: str = ""
    """Its run; empty as long as it has none."""
    seconds: float = 0.0
    reused: bool = False
    picture: ArtifactRef | None = None
    """The first result."""
    code: str = ""
    """Why it failed."""
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state not in ("waits", "running")


class Counted(_Frozen):
    """How the requests of a batch of very many stand."""

    requests: int
    """How many there are."""
    going: int = 0
    """Under way."""
    ended: Tally = Tally()
    """The others that are not waiting."""


class Board(_Frozen):
    """All requests of a batch, or a page of them."""

    flow_run_id: str
    """Of the batch itself."""
    flow: str
    """What each request runs."""
    began: float
    """Seconds of the epoch."""
    told: float
    """When it was written."""
    axes: tuple[Axis, ...] = ()
    """Those with most values first, unless a grid gives their order."""
    cells: tuple[BoardCell, ...] = ()
    """In their order."""
    counted: "Counted | None" = None
    """Where its cells lie in pages beside it: how all of them stand."""

    @property
    def pages(self) -> int:
        """How many lie beside it; 0 where its cells stand here."""
        return -(-self.counted.requests // PAGE) if self.counted else 0

    @property
    def changes(self) -> int:
        """Number of the latest change."""
        return max((cell.change for cell in self.cells), default=0)


def axes_of(given: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Parameters along which requests stand as a grid, with their values; none where they do not.

    What is another in every request names it, and is no axis; nor is what changes with another.

    Args:
        given: the parameters of each request, as text.
    """
    names = dict.fromkeys(name for each in given for name in each)
    found = {name: list(dict.fromkeys(each.get(name, "") for each in given)) for name in names}
    taken: dict[tuple[int, ...], str] = {}
    for name, said in sorted(found.items(), key=lambda one: -len(one[1])):
        if 1 < len(said) <= LONGEST_AXIS and len(said) < len(given):
            taken.setdefault(tuple(said.index(each.get(name, "")) for each in given), name)
    whole = prod(len(found[name]) for name in taken.values())
    return {name: found[name] for name in taken.values()} if whole == len(given) else {}


def captions_of(given: Sequence[Mapping[str, str]], where: Sequence[str]) -> list[str]:
    """What tells requests from one another: the prompt where it differs, else what does.

    Args:
        given: the parameters of each request, as text.
        where: each of them stands.
    """
    names = dict.fromkeys(name for each in given for name in each)
    differing = [name for name in names if len({each.get(name, "") for each in given}) > 1]
    told = [name for name in differing if name == "prompt"] or differing
    return [
        (
            ", ".join(
                each[name] if name == "prompt" else f"{name} {each[name]}"
                for name in told
                if each.get(name)
            )
            or place
        )[:LONGEST_CAPTION]
        for each, place in zip(given, where, strict=True)
    ]


def ended_cell(cell: BoardCell, outcome: BatchOutcome, change: int) -> BoardCell:
    """A cell once its request has ended."""
    error = outcome.error
    return cell.model_copy(
        update={
            "state": outcome.state,
            "change": change,
            "flow_run_id": outcome.flow_run_id,
            "seconds": outcome.seconds,
            "reused": outcome.reused,
            "picture": outcome.results[0] if outcome.results else None,
            "code": error.code if error else "",
            "problem": error.problem if error else "",
        }
    )


def board_key(flow_run_id: str | UUID, page: int = 0) -> str:
    """Where the store keeps the board of a batch, or a page of one, from 1."""
    return f"{BOARDS}{flow_run_id}{f'/{page:05}' if page else ''}.json"


def keep_board(store: Store, board: Board, page: int = 0) -> None:
    """Put a board, or a page of one, into the store; the one before it is gone."""
    data = board.model_dump_json(exclude_defaults=True).encode()
    store.write_record(board_key(board.flow_run_id, page), data)


def load_board(flow_run_id: str | UUID, page: int = 0) -> Board | None:
    """The board of a batch, or a page of it, from 1.

    Returns:
        None where it has none yet, or none that this version reads.
    """
    try:
        data = current_store().read_record(board_key(flow_run_id, page))
        return Board.model_validate_json(data)
    except (MissingFileError, ValidationError):
        return None
