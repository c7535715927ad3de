"""Every error code that something raises, provoked once.

`python -m tests.provoked` writes the table of docs/errors.md.

The messages in docs/errors.md are these, word for word, with the volume called `data`.
"""

import errno
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safelight import errors
from safelight.errors import PipelineError
from tests.served import CHECKOUT

PAGE = CHECKOUT / "docs" / "errors.md"
BEGIN, END = "<!-- made by python -m tests.provoked -->", "<!-- end -->"


@dataclass(frozen=True)
class Provoked:
    """One way to an error."""

    how: str
    """For people."""
    act: Callable[[Path], object]
    """Does it, given the root of a volume."""


def _contract(_: Path) -> None:
    from presets.base.catalog import find_preset

    find_preset("portrait_v9")


def _missing_field(_: Path) -> None:
    from safelight.params import checked
    from tasks.generate import GenerateParams

    checked(GenerateParams, "generate", steps=20)


def _invalid_value(_: Path) -> None:
    from safelight.params import checked
    from tasks.upscale import UpscaleParams

    checked(UpscaleParams, "upscale", upscale_factor=5)


def _dependency(_: Path) -> None:
    from safelight.params import checked
    from tasks.lipsync import LipsyncParams, lipsync

    lipsync.identity(checked(LipsyncParams, "lipsync"))


def _offline(_: Path) -> None:
    import httpx

    from safelight.client.asking import ask

    ask(lambda: httpx.get("http://127.0.0.1:9/api/health"), seconds=0)


def _stands_still(_: Path) -> None:
    from safelight.engines.comfy.following import require_moving

    require_moving("http://127.0.0.1:8188", still_seconds=1801, stall_seconds=1800)


def _no_keys(_: Path) -> None:
    from pydantic import SecretStr

    from safelight.store.s3 import Bucket

    key = SecretStr("AKIA")
    Bucket(
        "pictures",
        "",
        endpoint_url=None,
        region="eu-central-1",
        access_key=key,
        secret_key=None,
        path_style=False,
    )


def _wrong_password(_: Path) -> None:
    import httpx

    from safelight.client.asking import ask

    def question() -> None:
        request = httpx.Request("GET", "http://127.0.0.1:4200/api/flow_runs")
        httpx.Response(401, text="Unauthorized", request=request).raise_for_status()

    ask(question)


def _changed(root: Path) -> None:
    from safelight.store.local import LocalFolder

    LocalFolder(root).write("outputs/a.png", b"other bytes", "image/png", "0" * 64)


def _full(root: Path) -> None:
    from safelight.store.disk import disk_errors

    with disk_errors(root / "outputs" / "a.png"):
        raise OSError(errno.ENOSPC, "No space left on device")


def _busy_disk(root: Path) -> None:
    from safelight.store.disk import disk_errors

    with disk_errors(root / "outputs" / "a.png"):
        raise OSError(errno.EIO, "Input/output error")


def _no_file(root: Path) -> None:
    from tasks.base.ingest import ingest

    ingest(str(root / "uploads" / "none.png"), ("image",))


def _outside(_: Path) -> None:
    from tasks.base.ingest import ingest

    ingest("/etc/hostname", ("image",))


def _memory(_: Path) -> None:
    from safelight.engines.machine.memory import with_less_memory

    def too_much() -> None:
        raise MemoryError

    with_less_memory("a picture of 4096x4096 px", [("tiles of 64 px", too_much)])


def _consent(_: Path) -> None:
    from flows.running.consenting import require_consent
    from presets.photoreal_portrait_v1 import PRESET

    require_consent(PRESET, False, ["face.png"], {})


def _fetch(address: str, *, licence: str | None = None, sha256: str | None = None) -> None:
    from safelight.weights.catalog import Wanted, get_model
    from safelight.weights.fetching import Fetch

    get_model(
        Wanted(address, licence=licence, sha256=sha256),
        lambda bucket, key: f"https://{bucket}.example.org/{key}",
        lambda done, total: None,
        lambda web, on_bytes: Fetch(web, on_bytes, sleep=lambda seconds: None),
    )


def _no_licence(_: Path) -> None:
    _fetch("https://example.org/film.safetensors")


def _no_checksum(_: Path) -> None:
    _fetch("https://example.org/film.safetensors", licence="MIT")


def _broken_off(_: Path) -> None:
    _fetch("http://127.0.0.1:9/film.safetensors", licence="MIT", sha256="0" * 64)


def _too_often(_: Path) -> None:
    import httpx

    from safelight.weights.asking import require_good

    require_good(httpx.Response(429), None, "civitai:1234")


def _no_funds(_: Path) -> None:
    from safelight.engines.fal.refusals import refusal
    from safelight.engines.remote.asking import Answer, Provider

    told = {"detail": "User is locked. Reason: Exhausted balance."}
    raise refusal(Provider("fal"), Answer(403, {}, told))


def _unsafe(_: Path) -> None:
    from safelight.engines.kling.calls import refusal
    from safelight.engines.remote.asking import Answer, Provider

    told = {"code": 1301, "message": "the prompt breaks the rules of the platform"}
    raise refusal(Provider("Kling"), Answer(400, {}, told))


def _unknown(_: Path) -> None:
    from safelight.reports import as_known

    raise as_known(ZeroDivisionError("division by zero"))


PROVOKED: dict[str, Provoked] = {
    "AUTH_MISSING": Provoked("set one of the two keys of an S3 store", _no_keys),
    "AUTH_INVALID": Provoked("ask a Prefect server with a wrong password", _wrong_password),
    "CONTRACT_MISMATCH": Provoked("name a preset that is not there", _contract),
    "MISSING_REQUIRED_FIELD": Provoked("run `generate` without a prompt", _missing_field),
    "INVALID_FIELD_VALUE": Provoked("enlarge five times", _invalid_value),
    "DEPENDENCY_MISSING": Provoked(
        "run `lipsync` where nothing is connected that does it", _dependency
    ),
    "ENGINE_OFFLINE": Provoked("ask a Prefect server that does not run", _offline),
    "ENGINE_TIMEOUT": Provoked("run a workflow that stands still in ComfyUI", _stands_still),
    "CHECKSUM_MISMATCH": Provoked("change a file while it is stored", _changed),
    "DISK_FULL": Provoked("write a result onto a full disk", _full),
    "FILE_NOT_FOUND": Provoked("name a picture that is not there", _no_file),
    "PERMISSION_DENIED": Provoked("name a file outside the folders for inputs", _outside),
    "STORE_UNAVAILABLE": Provoked("write a result onto a disk with a defect", _busy_disk),
    "OUT_OF_MEMORY": Provoked("run out of memory in the most frugal way", _memory),
    "CONSENT_MISSING": Provoked("give a reference picture without `consent_given`", _consent),
    "DOWNLOAD_FAILED": Provoked("fetch a model from a server that is away", _broken_off),
    "CHECKSUM_MISSING": Provoked("fetch a model whose sha256 nobody tells", _no_checksum),
    "LICENSE_UNKNOWN": Provoked("fetch a model whose licence nobody tells", _no_licence),
    "RATE_LIMIT_EXCEEDED": Provoked("fetch models too often", _too_often),
    "INSUFFICIENT_FUNDS": Provoked("use fal without money in the account", _no_funds),
    "SAFETY_FILTER": Provoked("give Kling a prompt that it refuses", _unsafe),
    "UNKNOWN_ERROR": Provoked("an exception that nobody foresaw", _unknown),
}


def message(code: str, root: Path) -> PipelineError:
    """The error that provoking a code gives, with the volume at `root`."""
    try:
        PROVOKED[code].act(root)
    except PipelineError as error:
        return error
    raise AssertionError(f"{code} was not raised")


def retried() -> dict[str, bool]:
    """Every code, and whether it is tried again by itself."""
    return {
        value.code: value.transient
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PipelineError)
    }


def table(root: Path) -> str:
    """What stands in the page between its two marks.

    Args:
        root: of an empty volume, which the settings name.
    """
    rows = [
        "| code | one way to it | what it then says | what mends it | retried |",
        "|---|---|---|---|---|",
    ]
    known = retried()
    for code, provoked in PROVOKED.items():
        error = message(code, root)
        said, fix = (
            re.sub(r"report \w{12}|\w{12}\.txt", _no_id, text)
            .replace(str(root), "data")
            .replace(f"{CHECKOUT}/", "")
            for text in (error.problem, error.remedy)
        )
        cells = (code, provoked.how, said, fix, "yes" if known[code] else "")
        rows.append(
            f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |".replace("|  |", "| |")
        )
    return "\n".join(rows) + "\n"


def _no_id(found: re.Match[str]) -> str:
    return "ID.txt" if found[0].endswith(".txt") else "report ID"


def written(page: str) -> tuple[str, str, str]:
    """A page's text before its table, the table, and what follows."""
    before, rest = page.split(BEGIN + "\n")
    inside, after = rest.split(END)
    return before, inside, after


def main() -> None:
    """Write the table into the page."""
    import os

    with tempfile.TemporaryDirectory() as root:
        os.environ["VOLUME_ROOT"] = root
        before, _, after = written(PAGE.read_text())
        PAGE.write_text(f"{before}{BEGIN}\n{table(Path(root))}{END}{after}")


if __name__ == "__main__":
    main()
