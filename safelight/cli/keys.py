"""`safelight keys`: who may use the gateway."""

from datetime import datetime
from typing import Annotated

import typer
from pydantic import JsonValue

from safelight.access.keys import Key, Limits, Scope, last_use, list_keys, make_key, revoke_key
from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.errors import one_line

keys = typer.Typer(no_args_is_help=True, help="Keys of the gateway: shown once, kept hashed.")


@keys.command("create", help="Make a key. It is shown once; only its hash is kept.")
@reporting
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    scope: Annotated[
        Scope,
        typer.Option(help="viewer looks, operator submits too, admin deletes and makes keys too."),
    ] = Scope.OPERATOR,
    days: Annotated[float | None, typer.Option(help="How long it is good; else for ever.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests.")] = None,
    runs_per_day: Annotated[int | None, typer.Option(min=0, help="Jobs of a day (UTC).")] = None,
    gpu_seconds_per_day: Annotated[
        float | None, typer.Option(min=0, help="Seconds on a GPU of a day (UTC).")
    ] = None,
    usd_per_day: Annotated[
        float | None, typer.Option(min=0, help="Money for providers of a day (UTC).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key."""
    limits = Limits(
        requests_per_minute=requests_per_minute,
        runs_per_day=runs_per_day,
        gpu_seconds_per_day=gpu_seconds_per_day,
        usd_per_day=usd_per_day,
    )
    made, token = make_key(name, scope, days, limits)
    if as_json:
        show_json({**_facts(made), "key": token})
        return
    show_line(token)
    show_line(
        one_line(f"{made.id} {made.name}: {made.scope}, {_ends(made)}. It is not shown again.")
    )


@keys.command("list", help="All keys, with their state and last use.")
@reporting
def list_all(as_json: JsonOption = False) -> None:
    """All keys."""
    found = list_keys()
    if as_json:
        show_json([_facts(key) for key in found])
        return
    rows = [
        (key.id, one_line(key.name), key.scope.value, key.state, _ends(key), _time(last_use(key)))
        for key in found
    ]
    show_rows(("id", "name", "scope", "state", "expires", "last use"), rows)


@keys.command("revoke", help="Refuse a key from now on, and the sessions that began with it.")
@reporting
def revoke(
    key: Annotated[str, typer.Argument(help="Id of the key.")], as_json: JsonOption = False
) -> None:
    """Take a key back."""
    gone = revoke_key(key)
    if as_json:
        show_json(_facts(gone))
        return
    show_line(one_line(f"{gone.id} {gone.name} is revoked"))


def _facts(key: Key) -> dict[str, JsonValue]:
    used = last_use(key)
    facts = key.model_dump(mode="json", exclude={"digest"})
    return {**facts, "state": key.state, "last_use": None if used is None else used.isoformat()}


def _ends(key: Key) -> str:
    return "no end" if key.expires is None else _time(key.expires)


def _time(at: datetime | None) -> str:
    return "never" if at is None else at.isoformat(timespec="minutes")
