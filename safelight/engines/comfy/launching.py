"""How the ComfyUI of a checkout is started: its Python, its words, its environment, its log."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from safelight.engines.machine.device import resolve_device
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.private import make_folder
from safelight.settings import settings

FOLDER = "comfyui"
"""Below `cache` of the volume root: what is started here, its logs, what it makes."""
LOG_BYTES = 10 * 2**20
"""A longer log is begun anew when that ComfyUI starts; the one before is kept as `.1`."""
KEPT_SECONDS = 2 * 86400
"""What a ComfyUI has made here is removed after so long: results are in the store."""
OURS = ("--listen", "--port", "--output-directory", "--temp-directory")
"""Words that say what is decided here."""
HANDED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TEMP", "TMP"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("LD_LIBRARY_PATH", "REQUESTS_CA_BUNDLE", "SYSTEMROOT"),
)
HANDED_ON_BEGINNING = (
    *("LC_", "XDG_", "SSL_CERT_", "CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
    *("PYTORCH_", "TORCH_", "OMP_", "MKL_", "HF_HOME", "COMFYUI_"),
)
"""Variables that a ComfyUI gets of ours; keys and passwords are not among them."""


def folder() -> Path:
    """Where what belongs to a ComfyUI that is started here lies."""
    return settings().volume_root.resolve() / "cache" / FOLDER


def checkout() -> Path:
    """The checkout of the settings.

    Raises:
        DependencyMissingError: they name none, or what they name is none.
    """
    known = settings().comfy_dir
    if known is None:
        raise DependencyMissingError(
            "no checkout of ComfyUI is named",
            "set SAFELIGHT_COMFY_DIR to the folder of its main.py",
        )
    if not (known / "main.py").is_file():
        raise DependencyMissingError(
            f"SAFELIGHT_COMFY_DIR is {known}, which has no main.py",
            "name the folder of a checkout of ComfyUI",
        )
    return known.resolve()


def command(port: int, name: str) -> list[str]:
    """The command line of the ComfyUI that listens on a port of the loopback.

    Raises:
        DependencyMissingError: there is no checkout, or no Python of its own.
        InvalidFieldValueError: further words say what is decided here.
    """
    try:
        words = shlex.split(settings().comfy_options)
    except ValueError as error:
        raise InvalidFieldValueError(
            f"SAFELIGHT_COMFY_OPTIONS is no list of words: {error}", "close its quotation"
        ) from error
    taken = next((word for word in words if word.partition("=")[0] in OURS), None)
    if taken is not None:
        raise InvalidFieldValueError(
            f"SAFELIGHT_COMFY_OPTIONS has {taken}, which Safelight decides", "remove it there"
        )
    if resolve_device() == "cpu" and "--cpu" not in words:
        words.append("--cpu")
    if "--preview-method" not in words:
        words += ["--preview-method", "auto"]
    made = folder() / name
    return [
        str(_python(checkout())),
        *("main.py", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"),
        *("--output-directory", str(made / "output"), "--temp-directory", str(made / "temp")),
        *words,
    ]


def environment() -> dict[str, str]:
    """What that process has of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in HANDED_ON or name.startswith(HANDED_ON_BEGINNING)
    }
    return {**kept, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}


def log_of(name: str) -> Path:
    """The log of the ComfyUI of a name, made where it is not there."""
    make_folder(folder())
    path = folder() / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_BYTES:
        os.replace(path, path.with_suffix(".log.1"))
    path.touch(mode=0o600)
    return path


def swept(name: str) -> None:
    """Make the folder of results, and remove old ones."""
    output = folder() / name / "output"
    make_folder(output)
    oldest = time.time() - KEPT_SECONDS
    for file in output.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)


def _python(where: Path) -> Path:
    named = settings().comfy_python
    if named is not None:
        if not named.is_file():
            raise DependencyMissingError(
                f"SAFELIGHT_COMFY_PYTHON is {named}, which is no file",
                "name the Python of that ComfyUI's environment",
            )
        return named.absolute()  # a link of an environment is not followed
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    tries = [where / home / inside for home in ("venv", ".venv")]
    found = next((path for path in tries if path.is_file()), None)
    if found is None:
        raise DependencyMissingError(
            f"{where} has no environment in venv or .venv",
            "set SAFELIGHT_COMFY_PYTHON to the Python that runs that ComfyUI",
        )
    return found


def word_of(environ: Mapping[str, str]) -> str:
    """What a ComfyUI of this process is called: by the device that it sees."""
    device = environ.get("CUDA_VISIBLE_DEVICES") or settings().device
    return "".join(letter if letter.isalnum() else "-" for letter in device)[:40]
