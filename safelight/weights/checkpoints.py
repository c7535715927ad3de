"""Finds the files of text-to-image models: the operator's own, else the shipped one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from safelight.confined.calling import call_confined
from safelight.confined.transport import Array
from safelight.errors import DependencyMissingError, ForbiddenPathError, InvalidMediaError
from safelight.weights.families import FAMILIES
from safelight.weights.hashing import entries_of, files_of, stamp_of, weights_sha256
from safelight.weights.json_files import read_object
from safelight.weights.kinds import FOLDERS, ModelType
from safelight.weights.places import FACTS, STARTER, facts_file, models_folder
from safelight.weights.safety import (
    check_weights,
    safetensors_metadata,
    tensor_names,
)
from safelight.weights.used import near_names, registered, use

Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTION = "modelspec.prediction_type"
"""The one field of a model's metadata that changes its pictures."""
_PREDICTIONS: dict[str, Prediction | None] = {
    "": None,
    **dict.fromkeys(("epsilon", "eps"), "epsilon"),
    **dict.fromkeys(("v", "v_prediction", "v_pred", "velocity"), "v_prediction"),
    **dict.fromkeys(("sample", "x0"), "sample"),
}
"""How files write it."""
SINGLE_FILES = (".safetensors", ".ckpt")
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
_FAMILY_KEYS = {
    "conditioner.embedders.1.": "sdxl",
    "model.diffusion_model.joint_blocks.": "sd3",
    "model.diffusion_model.double_blocks.": "flux",
    "double_blocks.": "flux",
    "cond_stage_model.": "sd",
}
"""Beginnings of tensor names that only one family has."""
_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,127}")
_NATIVE = {"sdxl": 1024, "sd3": 1024, "flux": 1024}
_DEFAULT_NATIVE, _LATENT_LEVELS, _MOST_LEVELS = 512, 4, 16


class WeightsCard(BaseModel):
    """What is known about a model without loading it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What people call it: the stem of the file, or the name of the folder."""
    file_path: Path
    """A diffusers folder or a single file."""
    file_size_bytes: int
    """All files together."""
    sha256: str
    """Of the file; of a folder, over the sorted names and sha256s of its files."""
    native_width: int = Field(ge=8, le=16384)
    """Width it was trained at, pixels."""
    native_height: int = Field(ge=8, le=16384)
    """Height it was trained at, pixels."""
    recommended_steps: int | None = Field(default=None, ge=1, le=1000)
    """Denoising steps its maker recommends."""
    recommended_guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Guidance its maker recommends."""
    subjects: tuple[str, ...] = ()
    """Words it knows, for models that know few; empty for models that know many."""
    licence: str | None = None
    """Licence of the weights, as far as it is known."""
    base_model: str | None = None
    """Family it belongs to (sd, sdxl, sd3, flux), which LoRAs have to fit; None is unknown."""
    prediction_type: Prediction | None = None
    """What the network predicts, where the facts or the file itself say so; None is what its config
    says, which for single files is the noise."""
    zero_terminal_snr: bool | None = None
    """Whether it was trained to begin at pure noise, where the facts or the file say so."""
    description: str = ""
    """What it draws well."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""


def checkpoint_names() -> tuple[str, ...]:
    """Names of the operator's models, sorted."""
    folder = models_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(_name_of(path) for path in folder.iterdir() if _is_checkpoint(path)))


def find_checkpoint(name: str | None) -> WeightsCard:
    """The model with this name; without one the first of the operator's, else the shipped one.

    Args:
        name: stem of a single file or name of a diffusers folder in the models folder, `starter`,
            or a name of the registry, such as `portraits/dream`.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        InvalidFieldValueError: several models have it.
        DependencyMissingError: there is no such model.
        UnsafePickleError: the file could run code when it is loaded.
    """
    if name is not None:
        require_plain_name(name)
    names = checkpoint_names()
    wanted = name or next(iter(names), "starter")
    if wanted in names:
        path = next(
            p
            for p in sorted(models_folder().iterdir())
            if _is_checkpoint(p) and _name_of(p) == wanted
        )
        _require_inside(path, models_folder())
        return _card(path)
    if wanted == "starter" and (STARTER / "model_index.json").is_file():
        return _card(STARTER)
    path = registered(ModelType.CHECKPOINT, wanted)
    if path is not None:
        _require_inside(path, _own_root(path))
        return _card(path)
    known = (*names, *(["starter"] if STARTER.is_dir() else []))
    raise DependencyMissingError(
        f"there is no model {wanted!r} in {models_folder()}; "
        f"{_listed(ModelType.CHECKPOINT, wanted, known)}",
        "put a diffusers folder or a .safetensors file there, or set SAFELIGHT_MODELS_DIR",
    )


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
        if name in (_name_of(path), path.name):
            if kind == FOLDERS[ModelType.LORA] and path.is_dir():
                _require_adapter(path)
            _require_inside(path, models_folder())
            check_weights(path)
            return path
    # the registry has no kind of its own for some of these folders
    of_kind = next((each for each, place in FOLDERS.items() if place == kind), None)
    path = None if of_kind is None else registered(of_kind, name)
    if path is not None and (path.is_dir() or path.suffix.lower() in ends):
        if of_kind is ModelType.LORA and path.is_dir():
            _require_adapter(path)
        _require_inside(path, _own_root(path))
        check_weights(path)
        return path
    there = [_name_of(path) for path in usable]
    others = [p.name for p in found if p not in usable and name in (p.stem, p.name)]
    beside = f", and {', '.join(others)}, which is not read" if others else ""
    raise DependencyMissingError(
        f"there is no {name!r} in {folder}; {_listed(of_kind, name, there)}{beside}",
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


def _own_root(path: Path) -> Path:
    """What a model's files may not lead out of; one may be registered from anywhere."""
    folder = models_folder()
    return folder if path.is_relative_to(folder) else path if path.is_dir() else path.parent


def _listed(kind: ModelType | None, name: str, there: Sequence[str]) -> str:
    alike = [] if kind is None else near_names(kind, name)
    near = f"near it are: {', '.join(alike)}; " if alike else ""
    more = f" and {len(there) - MOST_LISTED} more" if len(there) > MOST_LISTED else ""
    return f"{near}there are: {', '.join(there[:MOST_LISTED]) or 'none'}{more}"


def _require_inside(path: Path, root: Path) -> None:
    for entry in (path, *(entries_of(path) if path.is_dir() else ())):
        try:
            inside = entry.resolve().is_relative_to(root)
        except (OSError, RuntimeError):  # in circles
            inside = False
        if not inside:
            raise ForbiddenPathError(
                f"{entry} is a link out of {root}", "put the files themselves there"
            )


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return (path / "model_index.json").is_file()
    return path.suffix.lower() in SINGLE_FILES


def _name_of(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _card(path: Path) -> WeightsCard:
    stats = [(p, p.stat()) for p in (*files_of(path), facts_file(path)) if p.is_file()]
    return _described(path, tuple((str(p), *stamp_of(s)) for p, s in stats))


@dataclass(frozen=True)
class Told:
    """What the files of a model say of it."""

    facts: dict[str, JsonValue]
    """Those beside it, unchecked."""
    family: object
    """sd, sdxl, sd3 or flux, or what the facts say instead; None where nothing tells."""
    side: int
    """Pixels it was trained at, by its network's config, else as its family."""
    predicts: Prediction | None
    """What its network predicts; None where only the config tells."""
    zero_snr: bool | None
    """Whether it was trained to begin at pure noise."""


def told_by(path: str) -> tuple[Told, Array | None]:
    """Read the configs and names of tensors of a model that was looked into."""
    model = Path(path)
    facts = _json(facts_file(model))
    names = frozenset[str]() if model.is_dir() else tensor_names(model)
    family = facts.get("base_model") or family_of(model, names)
    return Told(
        facts, family, _native_side(model, family), *_prediction_of(model, names, facts)
    ), None


@lru_cache(maxsize=64)
def _described(path: Path, stamps: tuple[tuple[str | int, ...], ...]) -> WeightsCard:
    del stamps  # part of the key: a changed file is looked into again
    check_weights(path, shipped=path == STARTER)
    if path == STARTER:
        told, _ = told_by(str(path))
    else:
        told, _ = call_confined(told_by, str(path), name=path.name, file_bytes=0)
    facts = cast("dict[str, Any]", told.facts)
    if path.is_dir():
        _require_listed(path, facts)
    sha256 = weights_sha256(path)
    use(path, sha256)
    try:
        return WeightsCard(
            name=_name_of(path),
            file_path=path,
            file_size_bytes=sum(file.stat().st_size for file in files_of(path)),
            sha256=sha256,
            native_width=facts.get("native_width", told.side),
            native_height=facts.get("native_height", told.side),
            recommended_steps=facts.get("recommended_steps"),
            recommended_guidance_scale=facts.get("recommended_guidance_scale"),
            subjects=tuple(
                word for s in facts.get("subjects") or () for word in (s["name"], *s["words"])
            ),
            licence=facts.get("licence"),
            base_model=cast("str | None", told.family),
            prediction_type=facts.get("prediction_type", told.predicts),
            zero_terminal_snr=facts.get("zero_terminal_snr", told.zero_snr),
            description=facts.get("description", ""),
            tags=facts.get("tags", ()),
        )
    except (ValidationError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidMediaError(
            f"the facts beside model {_name_of(path)} do not read as expected: {error}",
            f"correct {FACTS} in its folder, or the .json file beside it",
        ) from error


def _require_listed(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse files that are not those whose sha256 the facts list."""
    listed = facts.get("files")
    if not isinstance(listed, dict):
        return
    there = {file.relative_to(folder).as_posix(): file for file in files_of(folder)}
    for name, known in cast("dict[str, object]", listed).items():
        sha256 = cast("dict[str, object]", known).get("sha256") if isinstance(known, dict) else None
        if not isinstance(sha256, str):
            continue
        if name not in there or weights_sha256(there[name]) != sha256:
            raise InvalidMediaError(
                f"{name[:200]!r} of model {folder.name} is not the file with sha256 {sha256[:64]} "
                f"that {FACTS} lists",
                f"get the model again, or correct {FACTS}",
            )


def family_of(path: Path, names: frozenset[str]) -> str | None:
    """sd, sdxl, sd3 or flux, from a folder's index or the names in a checkpoint; None where neither
    tells."""
    if path.is_dir():
        made_for = str(_json(path / "model_index.json").get("_class_name", ""))
        return next((FAMILIES[start] for start in FAMILIES if made_for.startswith(start)), None)
    for start, family in _FAMILY_KEYS.items():
        if any(name.startswith(start) for name in names):
            return family
    return None


def _prediction_of(
    path: Path, names: frozenset[str], facts: Mapping[str, Any]
) -> tuple[Prediction | None, bool | None]:
    """What a single file says of its network: trainers leave it as tensors without content
    (`v_pred`, `ztsnr`) or as `modelspec.prediction_type` in its metadata. The facts count more."""
    if path.is_dir():
        return None, None
    zero = True if "ztsnr" in names else None
    said = safetensors_metadata(path).get(PREDICTION, "").strip().lower().replace("-", "_")
    if "prediction_type" in facts:
        return None, zero
    if said not in _PREDICTIONS:
        raise InvalidMediaError(
            f"{path.name} says {PREDICTION} {said[:40]!r}, expected epsilon, v or sample",
            f"name prediction_type in {path.stem}.json beside it",
        )
    return ("v_prediction" if "v_pred" in names else _PREDICTIONS[said]), zero


def _native_side(path: Path, family: str | None) -> int:
    """Pixels a side, from the size of the latents and the factor of the autoencoder."""
    usual = _NATIVE.get(str(family), _DEFAULT_NATIVE)  # what else facts call it is refused later
    for part in ("unet", "transformer"):
        latents = _json(path / part / "config.json").get("sample_size")
        if isinstance(latents, int):
            levels = _json(path / "vae" / "config.json").get("block_out_channels")
            levels = levels or [0] * _LATENT_LEVELS
            if not isinstance(levels, list) or len(cast("list[object]", levels)) > _MOST_LEVELS:
                raise InvalidMediaError(
                    f"the autoencoder of {path.name} lists no levels, or more than {_MOST_LEVELS}",
                    "correct vae/config.json, or get the model again",
                )
            return latents * 2 ** (len(cast("list[object]", levels)) - 1)
    return usual


def _json(file: Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}
