"""Finds the files of text-to-image models: the operator's own, else the shipped one."""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from safelight.digests import sha256_of
from safelight.errors import DependencyMissingError, ForbiddenPathError
from safelight.settings import settings
from safelight.weights.safety import check_single_file

SINGLE_FILES = (".safetensors", ".ckpt")
STARTER = Path(__file__).resolve().parents[2] / "weights" / "starter"
"""The small model that comes with the checkout."""
FACTS = "safelight.json"
"""Facts beside a model: native size, recommended settings, subjects, licence."""
_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9._\- ]{0,127}")
_DEFAULT_NATIVE = 512


class WeightsCard(BaseModel):
    """What is known about a model without loading it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What people call it: the stem of the file, or the name of the folder."""
    file_path: Path
    """A diffusers folder or a single file."""
    file_size_bytes: int
    """All files together."""
    sha256: str
    """Of the file; of a folder, over the sorted names and sha256s of its files."""
    native_width: int
    """Width it was trained at, pixels."""
    native_height: int
    """Height it was trained at, pixels."""
    recommended_steps: int | None = None
    """Denoising steps its maker recommends."""
    recommended_guidance_scale: float | None = None
    """Guidance its maker recommends."""
    subjects: tuple[str, ...] = ()
    """Words it knows, for models that know few; empty for models that know many."""
    licence: str | None = None
    """Licence of the weights, as far as it is known."""


def models_folder() -> Path:
    """Where the operator's own models lie."""
    known = settings()
    return (known.models_dir or known.volume_root / "models").resolve()


def checkpoint_names() -> tuple[str, ...]:
    """Names of the operator's models, sorted."""
    folder = models_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(_name_of(path) for path in folder.iterdir() if _is_checkpoint(path)))


def find_checkpoint(name: str | None) -> WeightsCard:
    """The model with this name; without one the first of the operator's, else the shipped one.

    Args:
        name: stem of a single file or name of a diffusers folder in the models folder, or
            `starter`.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        DependencyMissingError: there is no such model.
        UnsafePickleError: the file could run code when it is loaded.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ForbiddenPathError(
            f"model {name[:80]!r} is not a plain name", "name a model, not a path"
        )
    names = checkpoint_names()
    wanted = name or next(iter(names), "starter")
    if wanted not in names:
        if wanted == "starter" and (STARTER / "model_index.json").is_file():
            return _card(STARTER)
        known = ", ".join((*names, *(["starter"] if STARTER.is_dir() else []))) or "none"
        raise DependencyMissingError(
            f"there is no model {wanted!r} in {models_folder()}; there are: {known}",
            "put a diffusers folder or a .safetensors file there, or set SAFELIGHT_MODELS_DIR",
        )
    path = next(p for p in sorted(models_folder().iterdir()) if _name_of(p) == wanted)
    if not path.resolve().is_relative_to(models_folder()):
        raise ForbiddenPathError(
            f"model {wanted!r} is a link out of {models_folder()}", "put the files themselves there"
        )
    if path.is_file():
        check_single_file(path)
    return _card(path)


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return (path / "model_index.json").is_file()
    return path.suffix.lower() in SINGLE_FILES


def _name_of(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _card(path: Path) -> WeightsCard:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stamps = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _described(path, stamps)


@lru_cache(maxsize=64)
def _described(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> WeightsCard:
    facts_file = path / FACTS if path.is_dir() else path.with_suffix(".json")
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    side = _native_side(path)
    return WeightsCard(
        name=_name_of(path),
        file_path=path,
        file_size_bytes=sum(size for _, size, _ in stamps),
        sha256=_digest(path, [Path(name) for name, _, _ in stamps]),
        native_width=facts.get("native_width", side),
        native_height=facts.get("native_height", side),
        recommended_steps=facts.get("recommended_steps"),
        recommended_guidance_scale=facts.get("recommended_guidance_scale"),
        subjects=tuple(
            word for s in facts.get("subjects", ()) for word in (s["name"], *s["words"])
        ),
        licence=facts.get("licence"),
    )


def _native_side(folder: Path) -> int:
    """Pixels a side, from the size of the latents and the factor of the autoencoder."""
    for part in ("unet", "transformer"):
        config = folder / part / "config.json"
        if config.is_file():
            latents = json.loads(config.read_text()).get("sample_size")
            vae = folder / "vae" / "config.json"
            levels = json.loads(vae.read_text()).get("block_out_channels", [0] * 4)
            return int(latents) * 2 ** (len(levels) - 1) if latents else _DEFAULT_NATIVE
    return _DEFAULT_NATIVE


def _digest(path: Path, files: list[Path]) -> str:
    if path.is_file():
        return sha256_of(path)
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return total.hexdigest()
