"""Ends with 0 while the background services of this container are at work.

They listen on no port. Their worker leaves a sign of life in Redis every two seconds, which is
what the other services see of it too.
"""

import os
import socket
import sys
import time

import redis

DOCKET = "prefect"
"""Name that `prefect server services start` gives its work."""
SECONDS = 30


def newest_sign(client: "redis.Redis", host: str) -> float | None:
    """Unix time of the last sign of a worker on this host; None without any."""
    signs = client.zrange(f"{DOCKET}:workers", 0, -1, withscores=True)
    mine = [at for name, at in signs if name.decode().partition("#")[0] == host]
    return max(mine, default=None)


def main() -> int:
    """Look once."""
    url = os.environ["PREFECT_SERVER_DOCKET_URL"]
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        at = newest_sign(client, socket.gethostname())
    age = None if at is None else time.time() - at
    if age is None or age > SECONDS:
        sys.stderr.write(f"last sign of life {age} s ago, expected {SECONDS} s at most\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
