"""A watch in a process of its own that may be killed: `python -m tests.watching.looking IN OUT`.

Its requests turn pictures by a quarter, which says whether a picture was read whole. Like a batch
it makes nothing twice under one key; what it makes, it writes into `made.log` beside the target.
"""

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pydantic import JsonValue

from safelight.errors import MissingFileError
from safelight.exports.template import parse
from safelight.provenance.batches import BatchOutcome, BatchReport, keep_report, load_report
from safelight.store.artifact import ArtifactRef
from safelight.store.places import DiskPlace, Place
from safelight.store.store import current_store
from safelight.watching.ledger import Ledger
from safelight.watching.source import FolderSource, Source
from safelight.watching.watch import Original, Watch

SETTLE_SECONDS = 0.3
PAUSE_SECONDS = 0.02


def turned(data: bytes) -> bytes:
    made = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(made, "PNG")
    return made.getvalue()


class Turning:
    """Runs requests one by one, each once by the content of its file."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __call__(self, requests: Sequence[tuple[str, dict[str, JsonValue]]]) -> BatchReport:
        outcomes = tuple(
            self._one(number, name, str(values["image"]))
            for number, (name, values) in enumerate(requests, 1)
        )
        return BatchReport(
            flow_run_id="run",
            flow="enhance",
            batch="watch",
            ran="here",
            requests=len(requests),
            outcomes=outcomes,
        )

    def _one(self, number: int, name: str, uri: str) -> BatchOutcome:
        sha256 = uri.rpartition("/")[2].partition(".")[0]
        try:
            (before,) = load_report(sha256).outcomes
            return before.model_copy(update={"number": number})
        except MissingFileError:
            pass
        time.sleep(PAUSE_SECONDS)
        data = turned(current_store().read_record(uri.removeprefix("store:")))
        ref: ArtifactRef = current_store().put(data, "image/png")
        outcome = BatchOutcome(
            number=number, where=name, state="succeeded", flow_run_id=sha256, results=(ref,)
        )
        with self._log.open("a") as log:
            log.write(f"{sha256}\n")
        keep_report(
            BatchReport(
                flow_run_id=sha256,
                flow="enhance",
                batch="watch",
                ran="here",
                requests=1,
                outcomes=(outcome,),
            )
        )
        return outcome


def watch_over(
    source: Source, place: Place, log: Path, original: Original = "keep", settle: float = 0.0
) -> Watch:
    return Watch(
        source=source,
        place=place,
        ledger=Ledger("test"),
        takes=("image", "image"),
        run=Turning(log),
        template=parse("{folder}/{name}", "names"),
        original=original,
        settle_seconds=settle,
    )


def over_folder(folder: Path, target: Path, original: Original = "keep") -> Watch:
    place = DiskPlace(target, private=False)
    log = target.with_name("made.log")
    return watch_over(FolderSource(folder), place, log, original, SETTLE_SECONDS)


if __name__ == "__main__":
    watch = over_folder(Path(sys.argv[1]), Path(sys.argv[2]), "keep")
    sys.stdout.write("looking\n")
    sys.stdout.flush()
    while True:
        watch.look()
        time.sleep(0.05)
