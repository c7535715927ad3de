"""`python -m safelight.cli.prefect_server server start`: Prefect's command, patient with SQLite.

Prefect begins most transactions on SQLite as DEFERRED. One that reads before it writes then fails
at once, without heeding the busy timeout, when another wrote in between
(https://www.sqlite.org/rescode.html#busy_snapshot). The server answers 503, to one in sixteen of
runs created in a row; clients ask again two seconds later, the Prefect UI does not. Begun as
IMMEDIATE such transactions wait for one another. Nothing changes on PostgreSQL.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

STOCK = AioSqliteConfiguration.begin_transaction


@asynccontextmanager
async def begin_immediately(
    self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncGenerator[AsyncSessionTransaction, None]:
    """In the place of `AioSqliteConfiguration.begin_transaction`: each as if for an update."""
    del with_for_update
    async with STOCK(self, session, with_for_update=True) as transaction:
        yield transaction


if __name__ == "__main__":
    from prefect.cli import app

    AioSqliteConfiguration.begin_transaction = begin_immediately
    app()
