"""`safelight engines`: who can do the work, and what has been spent today."""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from safelight.cli.findings import Finding, Level
from safelight.cli.printing import CONSOLE, show_json, show_line
from safelight.engines.remote.listing import EngineState, engine_states
from safelight.engines.remote.spending import DAYS, spent, today
from safelight.settings import settings

COLOURS = {"ready": "green", "not connected": "dim", "not installed": "dim"}


def list_engines(*, as_json: bool) -> None:
    """Print all engines, and the day's costs."""
    states = list(engine_states())
    if as_json:
        show_json(
            {
                "engines": [state.model_dump(mode="json") for state in states],
                "spent_today_usd": spent_today(),
            }
        )
        return
    table = Table()
    table.add_column("engine", no_wrap=True)
    for heading in ("state", "version", "balance", "offers", "last error"):
        table.add_column(heading, overflow="fold")
    for state in states:
        why = f": {escape(state.found)}" if state.found else ""
        table.add_row(
            state.engine_id,
            f"[{COLOURS.get(state.state, 'bold red')}]{state.state}[/]{why}",
            state.version,
            state.balance,
            ", ".join(state.offers),
            escape(_last(state)),
        )
    CONSOLE.print(table)
    show_line(said_of_costs())


def check_engines() -> Iterator[Finding]:
    """Every engine, and what was spent on providers today."""
    levels: dict[str, Level] = {"ready": "ok", "not connected": "ok"}
    for state in engine_states():
        about = [state.state, *filter(None, (state.version, state.balance, state.found))]
        last = _last(state)
        if last:
            about.append(f"last error: {last}")
        level = levels.get(state.state, "warning")
        yield Finding(
            what=f"engine {state.engine_id}",
            level=level,
            found="; ".join((*about, ", ".join(state.offers))),
            remedy="" if level == "ok" else state.remedy,
        )
    yield Finding(what="providers", level="ok", found=said_of_costs())


def spent_today() -> float:
    """USD, as providers told or as expected."""
    return spent(f"{DAYS}{today()}/")


def said_of_costs() -> str:
    """What was spent today, and what may be."""
    limit = settings().budget_day_usd
    allowed = "no budget of a day is set" if limit is None else f"the day's budget is {limit:.2f}"
    return f"{spent_today():.4f} USD spent on providers today (UTC); {allowed}"


def _last(state: EngineState) -> str:
    last = state.last_error
    return "" if last is None else f"{last.at} {last.code}: {last.problem}"
