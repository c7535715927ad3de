"""The folder of workflows: `NAME.json` in the format of ComfyUI's API, `NAME.yaml` its form.

With a bucket as store, what is added here lies there too, so that workers of other machines, which
have no such folder, read the same.
"""

import os
import re
from pathlib import Path

from safelight.errors import InvalidFieldValueError, InvalidMediaError, MissingFileError
from safelight.params import shown
from safelight.private import make_folder
from safelight.settings import settings
from safelight.store.disk import disk_errors, half_made
from safelight.store.opening import opened_below
from safelight.store.store import current_store

FOLDER = "workflows"
"""Of the volume root."""
LARGEST = 16 * 2**20
"""Bytes of a workflow."""
LARGEST_FORM = 256 * 1024
"""Bytes of a form."""
PREFIX = "workflow_"
"""How names of the flows begin that run workflows."""
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}")
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")


def flow_of(name: str) -> str:
    """The flow that runs a workflow, and its deployment.

    Raises:
        InvalidFieldValueError: such a name makes no flow.
    """
    require_name(name)
    return f"{PREFIX}{name}"


def workflow_of(flow: str) -> str | None:
    """The workflow that a flow runs; None where it is another kind of flow."""
    name = flow.removeprefix(PREFIX)
    return name if name != flow and _NAME.fullmatch(name) else None


def require_name(name: str) -> None:
    """Refuse a name that makes no flow.

    Raises:
        InvalidFieldValueError: it has other characters than letters, digits and _.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidFieldValueError(
            f"{shown(name)} is no name of a workflow, expected letters, digits and _",
            "give it another name, such as portrait_xl",
        )


def name_for(file: Path) -> str:
    """The name that a file's own suggests."""
    return re.sub(r"[^A-Za-z0-9]+", "_", file.stem).strip("_").lower()[:80]


def names() -> tuple[str, ...]:
    """All workflows of this machine, sorted; also those whose names make no flow."""
    folder = settings().volume_root / FOLDER
    return tuple(sorted(file.stem for file in folder.glob("*.json") if file.is_file()))


def flow_names() -> tuple[str, ...]:
    """The flows of this machine's workflows."""
    return tuple(f"{PREFIX}{name}" for name in names() if _NAME.fullmatch(name))


def read_workflow(name: str) -> bytes:
    """What the file of a workflow holds.

    Raises:
        InvalidFieldValueError: its name is none of a file there.
        MissingFileError: there is none.
        InvalidMediaError: it is too large.
        ForbiddenPathError: it is a link to elsewhere, or may not be read.
    """
    if _FILE.fullmatch(name) is None:
        raise InvalidFieldValueError(
            f"workflow is {shown(name)}, expected the name of a file in {FOLDER}: "
            "letters, digits, spaces, dots, _ and -",
            "put the file right into that folder, and name it without .json",
        )
    found = _read(f"{name}.json", LARGEST)
    if found is None:
        raise MissingFileError(
            f"there is no workflow {name!r} in {FOLDER} of the volume; there are "
            f"{', '.join(names()[:20]) or 'none'}",
            "add it: safelight workflow add FILE",
        )
    return found


def read_form(name: str) -> bytes | None:
    """What the file of a workflow's form holds; None where it has none.

    Raises:
        As `read_workflow`.
    """
    require_name(name)
    return _read(f"{name}.yaml", LARGEST_FORM)


def keep(name: str, workflow: bytes, form: bytes, *, replace: bool) -> Path:
    """Write a workflow and its form; the path of the form.

    Raises:
        InvalidFieldValueError: there is one of this name, or such a name makes no flow.
    """
    require_name(name)
    folder = settings().volume_root.resolve() / FOLDER
    make_folder(folder)
    if (folder / f"{name}.json").exists() and not replace:
        raise InvalidFieldValueError(
            f"there is a workflow {name} already", "give --name another name, or add --replace"
        )
    for file, content in ((f"{name}.yaml", form), (f"{name}.json", workflow)):
        with disk_errors(folder / file), half_made(folder) as half:
            half.write_bytes(content)
            os.replace(half, folder / file)
        if settings().store:
            current_store().write_record(f"{FOLDER}/{file}", content)
    if settings().store:
        current_store().settle()
    return folder / f"{name}.yaml"


def _read(file: str, most: int) -> bytes | None:
    root = settings().volume_root.resolve()
    path = root / FOLDER / file
    if os.path.lexists(path):
        with opened_below(root, path) as handle, open(handle, "rb", closefd=False) as opened:
            content = opened.read(most + 1)
    elif settings().store:
        try:
            content = current_store().read_record(f"{FOLDER}/{file}")
        except MissingFileError:
            return None
    else:
        return None
    if len(content) > most:
        raise InvalidMediaError(
            f"{FOLDER}/{file} has more than {most} bytes", "export it from ComfyUI again"
        )
    return content
