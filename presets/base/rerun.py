"""What is changed of a run that failed when it is made again."""

from typing import Literal

from pydantic import Field

from safelight.params import Params


class RerunParams(Params):
    """What is changed of a run that failed, where it has such a setting."""

    quality: Literal["low", "own"]
    """low forces the lowest level; own keeps the one that the run had."""
    side: float = Field(gt=0, le=1)
    """Part of each side that is drawn; of models that draw at their own size alone nothing."""
    tile: int | None = Field(default=None, ge=64, multiple_of=8)
    """Largest tile, px; None keeps those that the run had."""
    another_engine: bool = True
    """Other engines of this process are asked before the one that failed."""
