"""`safelight audit`: what was done, and whether the log of it is whole."""

import json
import re
from collections import deque
from typing import Annotated

import typer

from safelight.audit.chain import Line
from safelight.audit.log import lines, log_folder
from safelight.audit.verifying import verify
from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.errors import InvalidFieldValueError, one_line

audit = typer.Typer(no_args_is_help=True, help="The log of what people, keys and runs did.")
_KNOWN = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")


@audit.command("list", help="The newest lines.")
@reporting
def list_lines(
    event: Annotated[str, typer.Option(help="How the event begins, such as key.")] = "",
    actor: Annotated[str, typer.Option(help="A part of who did it.")] = "",
    subject: Annotated[str, typer.Option(help="Id of a job, key or character.")] = "",
    last: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest lines."""
    kept: deque[Line] = deque(maxlen=last)
    for line in lines(log_folder(), about=subject):
        if line.event_type.startswith(event) and actor in line.actor:
            kept.append(line)
    if as_json:
        show_json([line.model_dump(mode="json") for line in kept])
        return
    rows = [
        (
            str(line.number),
            line.at.isoformat(timespec="seconds"),
            one_line(line.event_type),
            one_line(line.actor),
            one_line(line.subject),
            one_line(json.dumps({k: v for k, v in line.details.items() if v not in (None, "")})),
        )
        for line in kept
    ]
    show_rows(("number", "at", "event", "actor", "subject", "details"), rows)


@audit.command("verify", help="Whether no line was changed, removed, moved or cut off.")
@reporting
def check(
    known: Annotated[
        str | None, typer.Option(help="NUMBER:HASH that an earlier verify told and you kept.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Look through the copy in the bucket too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look through the log; exit status 1 where something is wrong."""
    if known is not None and not _KNOWN.fullmatch(known):
        raise InvalidFieldValueError(
            f"--known is {known[:80]!r}, expected NUMBER:HASH", "take what verify told"
        )
    number, _, digest = (known or "").partition(":")
    wanted = (int(number), digest) if known else None
    if store:
        from safelight.client.log_copies import verify_copy

        verdict = verify_copy(wanted)
    else:
        verdict = verify(log_folder(), wanted)
    if as_json:
        show_json(verdict.model_dump(mode="json"))
    else:
        for finding in verdict.findings:
            show_line(one_line(finding))
        said = "intact" if verdict.intact else "NOT intact"
        show_line(f"{verdict.lines} lines, {said}, head {verdict.head or 'none'}")
    if not verdict.intact:
        raise typer.Exit(1)
