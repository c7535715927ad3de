"""Finds the files of text-to-image models: the operator's own, else the shipped one."""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.confined.calling import call_confined
from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.weights.add_ons import listed, name_of, own_root, require_inside, require_plain_name
from safelight.weights.folder_parts import missing_in
from safelight.weights.hashing import files_of, stamp_of, weights_sha256
from safelight.weights.kinds import ModelType
from safelight.weights.parts import ROLES, Part, parts_of
from safelight.weights.places import FACTS, STARTER, facts_file, models_folder
from safelight.weights.safety import check_weights
from safelight.weights.telling import Prediction, Told, told_by
from safelight.weights.used import registered, use

SINGLE_FILES = (".safetensors", ".ckpt", ".gguf")


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
    parts: tuple[Part, ...] = ()
    """What a single file does not bring, and where it lies; of families whose files lack parts."""

    @property
    def weights(self) -> tuple[str, ...]:
        """sha256 of all that it is loaded from; a part that is left out counts by its name."""
        return (self.sha256, *(part.sha256 or f"no {part.role}" for part in self.parts))


def checkpoint_names() -> tuple[str, ...]:
    """Names of the operator's models, sorted."""
    folder = models_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(name_of(path) for path in folder.iterdir() if _is_checkpoint(path)))


def find_checkpoint(name: str | None) -> WeightsCard:
    """The model with this name; without one the first of the operator's, else the shipped one.

    Args:
        name: stem of a single file or name of a diffusers folder in the models folder, `starter`,
            or a name of the registry, such as `portraits/dream`.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        InvalidFieldValueError: several models have it.
        DependencyMissingError: there is no such model, or it is a file that lacks parts which are
            nowhere.
        UnsafePickleError: the file could run code when it is loaded.
    """
    return _card(_path_of(name))


def _path_of(name: str | None) -> Path:
    if name is not None:
        require_plain_name(name)
    names = checkpoint_names()
    wanted = name or next(iter(names), "starter")
    if wanted in names:
        path = next(
            p
            for p in sorted(models_folder().iterdir())
            if _is_checkpoint(p) and name_of(p) == wanted
        )
        require_inside(path, models_folder())
        return path
    if wanted == "starter" and (STARTER / "model_index.json").is_file():
        return STARTER
    path = registered(ModelType.CHECKPOINT, wanted)
    if path is not None:
        require_inside(path, own_root(path))
        return path
    known = (*names, *(["starter"] if STARTER.is_dir() else []))
    raise DependencyMissingError(
        f"there is no model {wanted!r} in {models_folder()}; "
        f"{listed(ModelType.CHECKPOINT, wanted, known)}",
        "put a diffusers folder or a .safetensors file there, or set SAFELIGHT_MODELS_DIR",
    )


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return (path / "model_index.json").is_file()
    return path.suffix.lower() in SINGLE_FILES


def _card(path: Path) -> WeightsCard:
    stats = [(p, p.stat()) for p in (*files_of(path), facts_file(path)) if p.is_file()]
    card, told = _described(path, tuple((str(p), *stamp_of(s)) for p, s in stats))
    if told.network not in ROLES:
        return card
    parts = parts_of(path, told.network, told.holds, told.facts.get("parts"), _folder_of)
    return card.model_copy(update={"parts": parts})


def _folder_of(name: str) -> Path:
    """The diffusers folder of a name, looked into."""
    path = _path_of(name)
    if not path.is_dir():
        raise InvalidMediaError(
            f"parts are to come from {path.name}, which is no diffusers folder",
            "name a folder with a model_index.json",
        )
    check_weights(path, shipped=path == STARTER)
    return path


@lru_cache(maxsize=64)
def _described(path: Path, stamps: tuple[tuple[str | int, ...], ...]) -> tuple[WeightsCard, Told]:
    del stamps  # part of the key: a changed file is looked into again
    check_weights(path, shipped=path == STARTER)
    if path == STARTER:
        told, _ = told_by(str(path))
    else:
        told, _ = call_confined(told_by, str(path), name=path.name, file_bytes=0)
    facts = cast("dict[str, Any]", told.facts)
    if path.is_dir():
        _require_listed(path, facts)
        _require_complete(path)
    sha256 = weights_sha256(path)
    use(path, sha256)
    try:
        card = WeightsCard(
            name=name_of(path),
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
            f"the facts beside model {name_of(path)} do not read as expected: {error}",
            f"correct {FACTS} in its folder, or the .json file beside it",
        ) from error
    return card, told


def _require_complete(folder: Path) -> None:
    """Refuse a folder that lacks files of its pipeline, before anything loads them."""
    missing = missing_in(folder)
    if missing:
        raise InvalidMediaError(
            f"model {folder.name} lacks {', '.join(missing)}, which its model_index.json lists",
            "put them there, or get the whole model again",
        )


def _require_listed(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse files that are not those whose sha256 the facts list."""
    files = facts.get("files")
    if not isinstance(files, dict):
        return
    there = {file.relative_to(folder).as_posix(): file for file in files_of(folder)}
    for name, known in cast("dict[str, object]", files).items():
        sha256 = cast("dict[str, object]", known).get("sha256") if isinstance(known, dict) else None
        if not isinstance(sha256, str):
            continue
        if name not in there or weights_sha256(there[name]) != sha256:
            raise InvalidMediaError(
                f"{name[:200]!r} of model {folder.name} is not the file with sha256 {sha256[:64]} "
                f"that {FACTS} lists",
                f"get the model again, or correct {FACTS}",
            )
