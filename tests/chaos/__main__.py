"""`python -m tests.chaos --faults 60 --seed 7`: status 1 when anything is not as it should be."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from tests.chaos.campaign import Pace, run_campaign


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None, help="drawn when left out")
    parser.add_argument("--longest-outage", type=float, default=4.0, help="of the store, seconds")
    parser.add_argument("--longest-sleep", type=float, default=8.0, help="of a machine, seconds")
    parser.add_argument("--longest-silence", type=float, default=6.0, help="of the Prefect server")
    parser.add_argument("--keep", action="store_true", help="keep logs also when all is well")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    seed = chosen.seed if chosen.seed is not None else time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    print(f"{chosen.faults} faults, seed {seed}, logs in {folder}", flush=True)  # noqa: T201
    pace = Pace(
        chosen.faults,
        seed,
        outage_seconds=(0.5, chosen.longest_outage),
        sleep_seconds=(1.0, chosen.longest_sleep),
        silence_seconds=(1.0, chosen.longest_silence),
    )
    report = run_campaign(pace, folder)
    print(report.table())  # noqa: T201
    for violation in report.violations:
        print(f"VIOLATION {violation}")  # noqa: T201
    if not report.violations and not chosen.keep:
        shutil.rmtree(folder)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
