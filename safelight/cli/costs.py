"""`safelight costs`: GPU-seconds and money, by what they were spent on."""

from datetime import datetime
from typing import Annotated

import typer

from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.errors import one_line
from safelight.provenance.costs import By, Cost, costs_of

COSTS_HELP = "GPU-seconds and money of all runs, by what they were spent on."


@reporting
def costs(
    by: Annotated[By, typer.Option(help="What they are added up by.")] = By.PRESET,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add up costs."""
    found = costs_of(by, since and since.date(), until and until.date())
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    rows = [_row(one) for one in (*found.costs, found.total)]
    show_rows((by.value, "runs", "GPU seconds", "CPU seconds", "USD"), rows)
    if found.unread:
        show_line(f"{found.unread} manifests cannot be read by this version, and are not counted")


def _row(cost: Cost) -> tuple[str, ...]:
    return (
        one_line(cost.name) or "none",
        str(cost.runs),
        f"{cost.gpu_seconds:.1f}",
        f"{cost.cpu_seconds:.1f}",
        f"{cost.usd:.4f}",
    )
