"""`python -m safelight.cli.prefect_server server start`: Prefect's command, patient with SQLite.

Its server has a rule of orchestration more than Prefect's, see `safelight.cli.orchestration`.

Prefect begins most transactions on SQLite as DEFERRED. One that reads before it writes then fails
at once, without heeding the busy timeout, when another wrote in between
(https://www.sqlite.org/rescode.html#busy_snapshot). The server answers 503, to one in sixteen of
runs created in a row; clients ask again two seconds later, the Prefect UI does not. Begun as
IMMEDIATE such transactions wait for one another. Nothing changes on PostgreSQL.

Only the outermost transaction is begun so. Prefect opens further sessions while one is open, to
read a work queue for its status event for instance: these would wait for a lock that their own
caller holds.

Outermost transactions take their turns before they take a connection. The server has fifteen; when
all wait for SQLite's lock, whoever holds it gets none for its further session, and everything
stands still for the thirty seconds after which it gives up. See `safelight.cli.server_turns`.

A database that is not there yet begins as a copy, see `safelight.cli.new_database`.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from prefect.server.api import server
from prefect.server.api.server import create_app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.models import block_registration
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from safelight.cli.new_database import DATABASE, begin_with_tables
from safelight.cli.orchestration import keep_ends
from safelight.cli.server_guard import ServerGuard
from safelight.cli.server_login import Logins
from safelight.cli.server_password import operators_password
from safelight.cli.server_turns import turn
from safelight.observing.logs import begin_log
from safelight.observing.requests import SeenRequests

# pyright: reportPrivateUsage=false
STOCK = AioSqliteConfiguration.begin_transaction
STOCK_INSTALLATION = block_registration._install_protected_system_blocks
OUTERMOST: ContextVar[AsyncSession | None] = ContextVar("OUTERMOST", default=None)
"""Session that holds the lock for whoever runs in this context."""


@asynccontextmanager
async def begin_immediately(
    self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncGenerator[AsyncSessionTransaction, None]:
    """In the place of Prefect's own: the outermost as if for an update."""
    outer = OUTERMOST.get()
    if outer is not None and outer.in_transaction():  # a task begun inside may outlive it
        async with STOCK(self, session, with_for_update) as transaction:
            yield transaction
        return
    async with turn(), STOCK(self, session, with_for_update=True) as transaction:
        await session.connection()  # begins here, so that the mode is not left to inner sessions
        mode, outermost = SQLITE_BEGIN_MODE.set("DEFERRED"), OUTERMOST.set(session)
        try:
            yield transaction
        finally:
            OUTERMOST.reset(outermost)
            SQLITE_BEGIN_MODE.reset(mode)


async def install_in_turn(session: AsyncSession) -> None:
    """In the place of Prefect's own, whose transactions are begun past its configuration."""
    async with turn():
        await STOCK_INSTALLATION(session)


def guarded(*args: Any, **kwargs: Any) -> FastAPI | SeenRequests:  # noqa: ANN401  (Prefect's own)
    """In the place of `prefect.server.api.server.create_app`: the app behind a guard.

    The server's own services ask the app without a network, as a host of no real name; what they
    get is the bare app. Only the one that is listened for is made as final.
    """
    if not kwargs.get("final"):
        return create_app(*args, **kwargs)
    begin_log("server")
    current = get_current_settings().server
    named = [current.ui.api_url or "", current.api.host]
    hosts = {urlsplit(url if "//" in url else f"//{url}").hostname or "" for url in named}
    origins = set(current.api.cors_allowed_origins.split(",")) - {"*", ""}
    app = create_app(*args, **kwargs)
    password = operators_password()
    logins = None if password is None else Logins(password, current.ui.serve_base)
    return SeenRequests(ServerGuard(app, frozenset(hosts - {""}), frozenset(origins), logins))


def begin() -> None:
    """Begin the database of Prefect's home, unless the settings name another one."""
    current = get_current_settings()
    named = current.server.database.connection_url
    ours = f"sqlite+aiosqlite:///{current.home / DATABASE}"
    if named is not None and named.get_secret_value() == ours:
        begin_with_tables(current.home)


if __name__ == "__main__":
    from prefect.cli import app

    AioSqliteConfiguration.begin_transaction = begin_immediately
    block_registration._install_protected_system_blocks = install_in_turn
    keep_ends()
    begin()
    server.create_app = guarded  # pyright: ignore[reportAttributeAccessIssue]
    app()
