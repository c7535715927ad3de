"""Finds the files of add-ons by name: LoRAs, embeddings, ControlNets, VAEs and whatever else has a
folder of its own among the models."""

import re
from collections.abc import Sequence
from pathlib import Path

from safelight.errors import DependencyMissingError, ForbiddenPathError, InvalidMediaError
from safelight.weights.hashing import entries_of
from safelight.weights.kinds import FOLDERS, ModelType
from safelight.weights.places import models_folder
from safelight.weights.safety import check_weights
from safelight.weights.used import near_names, registered

MOST_LISTED = 24
"""Names in a message."""
EMBEDDINGS = (".safetensors", ".pt", ".bin")
"""Ends of files with textual inversions; of several with one stem the first end counts."""
UPSCALERS = (".safetensors", ".pth", ".pt", ".ckpt")
"""The same of upscalers and restorers of faces."""
_ENDS = {
    "embeddings": EMBEDDINGS,
    "upscalers": UPSCALERS,
    "restorers": UPSCALERS,
    "vae": UPSCALERS,
    "face_recognition": UPSCALERS,
}
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""Of a folder with a LoRA, as peft saves it."""
_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,127}")


def find_add_on(kind: str, name: str) -> Path:
    """The file or folder of a LoRA, embedding, ControlNet, IP-Adapter or other add-on, checked.

    Args:
        kind: folder below the models folder: loras, embeddings, controlnet, ip_adapter,
            upscalers or restorers.
        name: stem of a .safetensors file there (of embeddings also .pt or .bin, of upscalers and
            restorers .pth), name of a folder, or a name of the registry.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the models folder.
        InvalidFieldValueError: several have it.
        InvalidMediaError: a folder among the LoRAs that is no adapter.
        DependencyMissingError: there is none of that name.
        UnsafePickleError: one of its files could run code when it is loaded.
    """
    require_plain_name(name)
    folder = models_folder() / kind
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    ends = _ENDS.get(kind, (".safetensors",))
    usable = sorted(
        (p for p in found if p.is_dir() or p.suffix.lower() in ends),
        key=lambda p: (p.suffix.lower() != ".safetensors", p),
    )
    for path in usable:
        if name in (name_of(path), path.name):
            if kind == FOLDERS[ModelType.LORA] and path.is_dir():
                _require_adapter(path)
            require_inside(path, models_folder())
            check_weights(path)
            return path
    # the registry has no kind of its own for some of these folders
    of_kind = next((each for each, place in FOLDERS.items() if place == kind), None)
    path = None if of_kind is None else registered(of_kind, name)
    if path is not None and (path.is_dir() or path.suffix.lower() in ends):
        if of_kind is ModelType.LORA and path.is_dir():
            _require_adapter(path)
        require_inside(path, own_root(path))
        check_weights(path)
        return path
    there = [name_of(path) for path in usable]
    others = [p.name for p in found if p not in usable and name in (p.stem, p.name)]
    beside = f", and {', '.join(others)}, which is not read" if others else ""
    raise DependencyMissingError(
        f"there is no {name!r} in {folder}; {listed(of_kind, name, there)}{beside}",
        f"put its .safetensors file or folder into {folder}",
    )


def _require_adapter(folder: Path) -> None:
    """Refuse a folder among the LoRAs that is none as peft saves them."""
    missing = [name for name in ADAPTER if not (folder / name).is_file()]
    if missing:
        beside = " (adapter_model.bin is not read)" * (folder / "adapter_model.bin").is_file()
        raise InvalidMediaError(
            f"folder {folder.name} of the LoRAs has no {' and no '.join(missing)}{beside}",
            "name a .safetensors file, or save the adapter with peft's save_pretrained()",
        )


def require_plain_name(name: str) -> None:
    """Refuse a name that is a path, or is none at all; folders may stand before it.

    Raises:
        ForbiddenPathError: one of its parts is empty, begins with a dot, holds control characters,
            or has more than 128 characters.
    """
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise ForbiddenPathError(
            f"model {name[:80]!r} is not a plain name", "name a model, not a path"
        )


def own_root(path: Path) -> Path:
    """What a model's files may not lead out of; one may be registered from anywhere."""
    folder = models_folder()
    return folder if path.is_relative_to(folder) else path if path.is_dir() else path.parent


def listed(kind: ModelType | None, name: str, there: Sequence[str]) -> str:
    """For people: names like a wrong one, and those that there are."""
    alike = [] if kind is None else near_names(kind, name)
    near = f"near it are: {', '.join(alike)}; " if alike else ""
    more = f" and {len(there) - MOST_LISTED} more" if len(there) > MOST_LISTED else ""
    return f"{near}there are: {', '.join(there[:MOST_LISTED]) or 'none'}{more}"


def require_inside(path: Path, root: Path) -> None:
    """Refuse a file, or anything in a folder, that leads out of another folder.

    Raises:
        ForbiddenPathError: with the first of them.
    """
    for entry in (path, *(entries_of(path) if path.is_dir() else ())):
        try:
            inside = entry.resolve().is_relative_to(root)
        except (OSError, RuntimeError):  # in circles
            inside = False
        if not inside:
            raise ForbiddenPathError(
                f"{entry} is a link out of {root}", "put the files themselves there"
            )


def name_of(path: Path) -> str:
    """The name of a folder, the stem of a file."""
    return path.name if path.is_dir() else path.stem
