"""What the doctor says about one checked thing."""

from typing import Literal

from pydantic import BaseModel

Level = Literal["ok", "warning", "problem"]


class Finding(BaseModel):
    """One checked thing."""

    what: str
    """Name of the thing."""
    level: Level
    """`problem` keeps runs from working."""
    found: str
    """What is there."""
    remedy: str = ""
    """What to do; empty when all is well."""


def finding(what: str, found: str, level: Level = "ok", remedy: str = "") -> Finding:
    """A finding in one line; everything but `ok` carries a remedy."""
    return Finding(what=what, level=level, found=found, remedy=remedy)
