"""Consent to the use of a person's likeness, as the manifest of a run keeps it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

STATEMENT = "I have the permission of the person shown to use their face and likeness for this."
"""What `consent_given` says; forms show it beside the switch."""


class ConsentRecord(BaseModel):
    """Who said that a person agreed, when, in which words, and to the use of which photographs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    who: str
    """A name."""
    known_by: Literal["stated", "server", "account"]
    """Where the name comes from: the run's `consent_by`, what the Prefect server says of who
    created the run, or the account under which the run's process works."""
    when: str
    """ISO 8601 with its offset: when the run that was given the consent began."""
    statement: str
    """The words that were agreed to."""
    references: dict[str, str]
    """Name of each reference photograph among the run's inputs to its sha256."""
