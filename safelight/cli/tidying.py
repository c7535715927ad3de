"""Shows what may go from the store, and removes it where that is asked for."""

from typing import Annotated

import typer

from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import CONSOLE, show_line, show_rows

store = typer.Typer(no_args_is_help=True, help="Where results, uploads and caches lie.")
GC_HELP = (
    "Say what nothing needs any more: files that no kept manifest names, caches, parts of stages "
    "that nobody goes on with, expired uploads. --delete removes it. Never what a run that has not "
    "ended may read, nor what is starred, nor anything of a character."
)


@store.command(help=GC_HELP)
@reporting
def gc(
    older_than: Annotated[
        float, typer.Option(min=1.0, help="Days since a file was written; at least 1.")
    ] = 30.0,
    runs_older_than: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Days after which the manifest of a run goes too, and with it what it alone "
            "names, unless a file of it is starred. Without it manifests stay.",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find what may go."""
    from safelight.cli.server import prefect_api
    from safelight.client.asking import patient_client
    from safelight.client.unfinished import unfinished
    from safelight.retention.gathering import Limits
    from safelight.retention.removing import collect, shown

    limits = Limits(older_than, runs_older_than)
    with prefect_api(), patient_client() as client:
        removed = collect(limits, lambda: unfinished(client), delete=delete)
    if as_json:
        CONSOLE.print_json(removed.model_dump_json())
        return
    rows = [[kind, str(files), f"{size / 1e6:.1f} MB"] for kind, files, size in shown(removed)]
    show_rows(["kind", "files", "size"], rows)
    total = sum(removed.bytes.values()) / 1e6
    said = "removed" if delete else "may go; --delete removes it"
    show_line(f"{sum(removed.counts.values())} files, {total:.1f} MB: {said}")
    if removed.waiting:
        show_line(f"{removed.waiting} old files wait: a run that is under way may read them")
