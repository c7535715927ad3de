"""`python -m safelight.cli.pool_type POOL TYPE`: gives a work pool another type, in the database.

For a server of our own alone: the database is that of the settings. Its queues, runs and
deployments stay; the form of the new type is filled in by its first worker.
"""

import asyncio
import sys

import sqlalchemy as sa
from prefect.server.database import provide_database_interface


async def change_type(pool: str, pool_type: str) -> None:
    """Change it; nothing happens when there is no such pool."""
    db = provide_database_interface()
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(
            sa.update(db.WorkPool)
            .where(db.WorkPool.name == pool)
            .values(type=pool_type, base_job_template={})
        )


if __name__ == "__main__":
    asyncio.run(change_type(*sys.argv[1:]))
