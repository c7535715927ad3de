"""What calls to providers cost: estimated before, charged after."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel, ConfigDict, Field


class Charge(BaseModel):
    """One call that may have cost money."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    engine_id: str
    """Whose engine did the work."""
    task: str
    """Our own id of the call."""
    remote_id: str = ""
    """The provider's id of the work; empty where none was told."""
    model: str
    """What the provider calls its model."""
    estimated_usd: float = Field(ge=0)
    """Before the call."""
    charged_usd: float | None = Field(default=None, ge=0)
    """After it; None where nobody knows yet, or whether at all."""

    @property
    def usd(self) -> float:
        """What counts: what was charged, else what was expected."""
        return self.estimated_usd if self.charged_usd is None else self.charged_usd


def total(charges: Iterable[Charge]) -> float:
    """The sum in USD, without the noise of binary fractions."""
    return round(sum(charge.usd for charge in charges), 6)


_charges: ContextVar[dict[str, Charge] | None] = ContextVar("charges", default=None)


def charge(one: Charge) -> None:
    """Enter a call into the work that runs; a later word on the same call takes its place."""
    charges = _charges.get()
    if charges is not None:
        charges[one.task] = one


@contextmanager
def charging(charges: dict[str, Charge]) -> Generator[None]:
    """Collect the calls made inside, by our own ids of them."""
    token = _charges.set(charges)
    try:
        yield
    finally:
        _charges.reset(token)
