"""What a preset does with a result that does not show what it has to."""

from typing import Literal

from pydantic import Field

from safelight.params import Params


class GateParams(Params):
    """What a result has to show, and what happens where it does not."""

    blank: bool = True
    """Whether a picture of one colour all over is refused."""
    faces: int = Field(default=0, ge=0, le=16)
    """How many faces it has to show at the least; 0 looks for none."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """How sure the detector must be of a face."""
    safe: bool = False
    """Whether a safety checker of the models folder looks at it."""
    similarity: float | None = Field(default=None, ge=0, le=1)
    """How alike its face has to be to the person's photographs at the least; None compares none."""
    policy: Literal["fail", "warn", "next_seed"] = "next_seed"
    """fail ends the run, warn lets the picture pass with a note, next_seed draws it again with the
    next seed."""
    tries: int = Field(default=3, ge=1, le=8)
    """Drawings in all where the policy is next_seed."""
    then: Literal["fail", "warn"] = "fail"
    """What becomes of the first drawing where none of them passes."""
