"""Processes that do some work at a provider and may be killed at any moment.

`python -m tests.engines.remote.trial` reads one JSON object a line and forks a process for each:
the libraries are imported once. It tells the process's id, then how it ended.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from safelight.engines.choosing import engines
from safelight.errors import PipelineError
from safelight.settings import settings
from safelight.store.store import current_store
from tests.engines.remote import acts


def work(wanted: dict[str, Any]) -> dict[str, Any]:
    """Do it; what came of it."""
    os.environ.update(wanted["environment"])
    settings.cache_clear()
    current_store.cache_clear()
    does = {
        "fal": acts.fal_draws,
        "runware": acts.runware_enlarges,
        "kling": acts.kling_animates,
        "sync": lambda: acts.sync_speaks(Path(wanted["folder"])),
    }
    try:
        charges = acts.as_work(wanted["name"], does[wanted["what"]], wanted["name"])
    except PipelineError as error:
        return {"code": error.code, "charged": error.charged, "problem": error.problem}
    return {"code": "", "usd": [charge.usd for charge in charges.values()]}


def main() -> None:
    """Until there is no more to do."""
    import av  # noqa: F401
    import cv2  # noqa: F401

    engines()
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            made = work(wanted)
            Path(wanted["outcome"]).write_text(json.dumps(made))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
