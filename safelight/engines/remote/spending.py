"""What calls to providers cost by run and by day, and the budgets that refuse before a call.

One small record a call stands under its run and under its day in the store. The amount is part of
its name, so that a sum is one listing.
"""

import re
from datetime import UTC, datetime

from safelight.errors import InsufficientFundsError
from safelight.provenance.charges import Charge
from safelight.settings import settings
from safelight.store.store import Store, current_store

RUNS, DAYS = "outputs/costs/runs/", "outputs/costs/days/"
MILLION = 1_000_000
_NAME = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<kind>[ec])(?P<micro>\d+)\.json")


def today() -> str:
    """The day that counts now, in UTC."""
    return datetime.now(UTC).date().isoformat()


def reserve(charge: Charge, run: str, day: str) -> None:
    """Enter what a call is expected to cost, before it is made.

    Two calls at once count each other, so that a budget is never passed; where both were the last
    to fit, both may be refused.

    Raises:
        InsufficientFundsError: with it more would be spent than a budget allows; nothing is kept.
    """
    store = current_store()
    _write(store, charge, run, day)
    try:
        require_budget(0.0, run, day)
    except InsufficientFundsError:
        release(charge.task, run, day)
        raise


def require_budget(more_usd: float, run: str | None = None, day: str | None = None) -> None:
    """Refuse what a budget does not allow.

    Args:
        more_usd: what is to be spent, in addition to what is entered.
        run: whose budget counts; None asks for that of the day alone.
        day: which; None is today.

    Raises:
        InsufficientFundsError: it would be more than the budget of the run or the day.
    """
    known = settings()
    limits = (
        ("run", known.budget_run_usd, f"{RUNS}{run}/" if run else None),
        ("day", known.budget_day_usd, f"{DAYS}{day or today()}/"),
    )
    for name, limit, prefix in limits:
        if limit is None or prefix is None:
            continue
        needed = spent(prefix) + more_usd
        if round(needed * MILLION) > round(limit * MILLION):
            raise InsufficientFundsError(
                f"with this call {needed:.4f} USD would be spent on providers in one {name}, the "
                f"budget is {limit:.4f}",
                f"raise SAFELIGHT_BUDGET_{name.upper()}_USD, or let another engine do it",
            )


def settle(charge: Charge, run: str, day: str) -> None:
    """Enter what a call did cost, in place of what was expected."""
    store = current_store()
    kept = _write(store, charge, run, day)
    for key in _entries(store, charge.task, run, day):
        if key not in kept:
            store.backend.delete(key)


def release(task: str, run: str, day: str) -> None:
    """Forget a call for which nothing was charged."""
    store = current_store()
    for key in _entries(store, task, run, day):
        store.backend.delete(key)


def spent(prefix: str) -> float:
    """What the calls of a run or a day cost, in USD.

    Args:
        prefix: of the run or the day.
    """
    amounts: dict[str, tuple[str, int]] = {}
    for key in current_store().backend.list(prefix):
        found = _NAME.fullmatch(key.rpartition("/")[2])
        if found is not None:  # charged (c) comes before estimated (e): the last written counts
            known = amounts.get(found["task"])
            if known is None or found["kind"] == "c":
                amounts[found["task"]] = (found["kind"], int(found["micro"]))
    return sum(micro for _, micro in amounts.values()) / MILLION


def spent_by(run: str) -> float:
    """What the calls of a run cost, in USD."""
    return spent(f"{RUNS}{run}/")


def has_sent(run: str) -> bool:
    """Whether a run has sent anything to a provider that may cost money."""
    return bool(current_store().backend.list(f"{RUNS}{run}/"))


def _write(store: Store, charge: Charge, run: str, day: str) -> list[str]:
    kind = "e" if charge.charged_usd is None else "c"
    name = f"{charge.task}.{kind}{round(charge.usd * MILLION)}.json"
    keys = [f"{RUNS}{run}/{name}", f"{DAYS}{day}/{name}"]
    for key in keys:
        store.backend.write(key, charge.model_dump_json().encode(), "application/json")
    return keys


def _entries(store: Store, task: str, run: str, day: str) -> list[str]:
    prefixes = (f"{RUNS}{run}/{task}.", f"{DAYS}{day}/{task}.")
    return [key for prefix in prefixes for key in store.backend.list(prefix)]
