"""What the header and the metadata of weights say of them; runs in the confined process.

Keys: `modelspec.*` of Stability's specification 1.0.1, `ss_*` of kohya's scripts, `__metadata__` of
peft; the names of tensors tell the rest.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.confined.transport import Array
from safelight.errors import PipelineError
from safelight.weights.families import (
    base_model_of,
    class_kind,
    class_model,
    kind_of,
    network_of,
)
from safelight.weights.gguf_files import gguf_header
from safelight.weights.json_files import read_object
from safelight.weights.kinds import ModelType
from safelight.weights.safety import (
    check_files,
    is_gguf,
    tensor_names,
    whole_header,
)

LONGEST_TEXT = 2000
"""Characters of a text that is kept."""
MOST_WORDS = 12
"""Trigger words and tags that are kept."""
LARGEST_LIST = 2**20
"""Characters of a list in the metadata that is read."""
FRONT_MATTER = 8192
"""Bytes of a README that are read for its licence."""
_LICENCE = re.compile(r"^licen[sc]e(?:_name)?:\s*[\"']?([\w.+() -]{1,80})", re.MULTILINE)
_TEXTS = {
    "title": ("modelspec.title", "ss_output_name"),
    "author": ("modelspec.author",),
    "architecture": ("modelspec.architecture", "ss_base_model_version"),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "trained_on": ("ss_sd_model_name",),
    "usage_hint": ("modelspec.usage_hint",),
}
"""What is kept as it is, by our name for it."""


class Described(BaseModel):
    """What a model says of itself; nothing of it is trusted to be true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ModelType | None = None
    """What it is for; None where nothing in it tells."""
    base_model: str | None = None
    """Its family."""
    licence: str | None = None
    """As it is named."""
    description: str = ""
    """In the maker's words."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    metadata: dict[str, JsonValue] = {}
    """prediction_type, rank, alpha, trigger_words, preview, title, author, architecture,
    resolution, trained_on, usage_hint, problem: those that are known."""


def described(units: list[dict[str, JsonValue]]) -> tuple[list[Described], Array | None]:
    """Look into models, each with `path`, `folder`, `facts` and `preview` as `Unit` has them."""
    return [_described(unit) for unit in units], None


def _described(unit: dict[str, JsonValue]) -> Described:
    path = Path(str(unit["path"]))
    try:
        told = _of_folder(path) if unit["folder"] else _of_file(path)
    except (PipelineError, OSError) as error:
        problem = str(error) if isinstance(error, PipelineError) else f"{error.strerror}"
        told = Described(metadata={"problem": problem[:LONGEST_TEXT]})
    if unit.get("preview"):
        told = told.model_copy(update={"metadata": {**told.metadata, "preview": unit["preview"]}})
    return _with_facts(told, unit.get("facts"))


def _of_file(path: Path) -> Described:
    if is_gguf(path):
        said = {}
        shapes = {name: tensor.shape for name, tensor in gguf_header(path).items()}
    elif path.suffix.lower() == ".safetensors" or not _is_packed(path):
        header = whole_header(path)
        said = _texts(header.get("__metadata__"))
        shapes = {name: _shape(tensor) for name, tensor in header.items() if name != "__metadata__"}
    else:
        check_files([str(path)])
        said, shapes = {}, dict.fromkeys(tensor_names(path), ())
    return _told(said, shapes)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _texts(metadata: object) -> dict[str, str]:
    pairs = cast("dict[object, object]", metadata).items() if isinstance(metadata, dict) else ()
    return {str(name): value for name, value in pairs if isinstance(value, str)}


def _shape(tensor: object) -> tuple[int, ...]:
    shape = cast("dict[str, object]", tensor).get("shape") if isinstance(tensor, dict) else None
    sides = cast("list[object]", shape) if isinstance(shape, list) else []
    return tuple(side if type(side) is int else 0 for side in sides)


def _told(said: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Described:
    kind = kind_of(said, shapes)
    metadata: dict[str, JsonValue] = {}
    for ours, theirs in _TEXTS.items():
        text = next((said[name] for name in theirs if said.get(name, "").strip()), None)
        if text is not None:
            metadata[ours] = _cut(text)
    prediction = _prediction(said, shapes)
    if prediction is not None:
        metadata["prediction_type"] = prediction
    metadata.update(network_of(said, shapes) if kind is ModelType.LORA else {})
    words = _trigger_words(said)
    if words:
        metadata["trigger_words"] = list[JsonValue](words)
    if said.get("modelspec.thumbnail", "").startswith("data:image/"):
        metadata["preview"] = "modelspec.thumbnail"
    return Described(
        kind=kind,
        base_model=base_model_of(said, shapes, kind),
        licence=_cut(said["modelspec.license"]) if said.get("modelspec.license") else None,
        description=_cut(said.get("modelspec.description", "")),
        tags=_words(said.get("modelspec.tags", "").split(",")),
        metadata=metadata,
    )


def _prediction(said: Mapping[str, str], shapes: Mapping[str, object]) -> str | None:
    named = said.get("modelspec.prediction_type", "").lower().replace("-", "_")
    velocity = said.get("ss_v_parameterization") == "True"
    if "v_pred" in shapes or named in ("v", "v_prediction", "v_pred") or velocity:
        return "v_prediction"
    return named if named in ("epsilon", "sample", "flow") else None


def _trigger_words(said: Mapping[str, str]) -> tuple[str, ...]:
    """Those that the maker names; else the words of its training folders and the tags that all
    its pictures have."""
    named = said.get("modelspec.trigger_phrase", "")
    if named.strip():
        return _words(named.split(","))
    folders = _object(said.get("ss_dataset_dirs", ""))
    counts = _object(said.get("ss_tag_frequency", ""))
    found: list[str] = []
    for name in (*folders, *counts):
        number, _, words = name.partition("_")
        if number.isdigit() and words.strip():
            found.append(words)
    for name, tags in counts.items():
        about = folders.get(name)
        pictures = (
            cast("dict[str, object]", about).get("img_count") if isinstance(about, dict) else 0
        )
        if isinstance(tags, dict) and isinstance(pictures, int) and pictures > 1:
            known = cast("dict[str, object]", tags).items()
            found += [tag for tag, count in known if isinstance(count, int) and count >= pictures]
    return _words(found)


def _object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text) if 0 < len(text) <= LARGEST_LIST else {}
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _words(given: Iterable[object]) -> tuple[str, ...]:
    stripped = (_cut(word)[:80] for word in given if isinstance(word, str))
    return tuple(dict.fromkeys(word for word in stripped if word))[:MOST_WORDS]


def _cut(text: str) -> str:
    """No longer than is kept; half of a pair, which nothing can be written with, as its escape."""
    return text.strip()[:LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()


def _of_folder(path: Path) -> Described:
    """By the class that its index or config names; a LoRA of peft by its adapter."""
    if (path / "model_index.json").is_file():
        named = str(read_object(path / "model_index.json").get("_class_name", ""))
        scheduler = _config(path / "scheduler" / "scheduler_config.json")
        metadata: dict[str, JsonValue] = {"architecture": _cut(named)}
        if isinstance(scheduler.get("prediction_type"), str):
            metadata["prediction_type"] = _cut(str(scheduler["prediction_type"]))
        told = Described(
            kind=ModelType.CHECKPOINT, base_model=class_model(named), metadata=metadata
        )
    elif (path / "adapter_config.json").is_file():
        config = _config(path / "adapter_config.json")
        rank = config.get("r")
        told = Described(
            kind=ModelType.LORA, metadata={"rank": rank} if isinstance(rank, int) else {}
        )
    elif (path / "image_encoder").is_dir():
        told = Described(kind=ModelType.IP_ADAPTER)
    else:
        named = str(_config(path / "config.json").get("_class_name", ""))
        told = Described(
            kind=class_kind(named),
            base_model=class_model(named),
            metadata={"architecture": _cut(named)} if named else {},
        )
    return told.model_copy(update={"licence": _readme_licence(path)})


def _config(file: Path) -> dict[str, object]:
    return read_object(file) if file.is_file() else {}


def _readme_licence(folder: Path) -> str | None:
    """As the front matter of its README says, the form of the large hubs."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    with readme.open("rb") as file:
        text = file.read(FRONT_MATTER).decode("utf-8", "replace")
    if not text.startswith("---"):
        return None
    front = text[3:].partition("\n---")[0]
    named = [found[1].strip() for found in _LICENCE.finditer(front)]
    return next((name for name in reversed(named) if name.lower() != "other"), None)


def _with_facts(told: Described, file: JsonValue) -> Described:
    """What the operator says beside a model counts more than what it says itself."""
    if not isinstance(file, str):
        return told
    try:
        facts = read_object(Path(file))
    except (PipelineError, OSError):  # it is refused, with its error, when the model is used
        return told
    licence = facts.get("licence", facts.get("license"))
    base = facts.get("base_model")
    words = facts.get("trigger_words", facts.get("trainedWords"))
    tags = facts.get("tags")
    description = facts.get("description")
    metadata = dict(told.metadata)
    if isinstance(facts.get("prediction_type"), str):
        metadata["prediction_type"] = _cut(str(facts["prediction_type"]))
    if isinstance(words, list):
        metadata["trigger_words"] = list[JsonValue](_words(cast("list[object]", words)))
    return told.model_copy(
        update={
            "licence": _cut(licence) if isinstance(licence, str) else told.licence,
            "base_model": _cut(base) if isinstance(base, str) else told.base_model,
            "description": _cut(description) if isinstance(description, str) else told.description,
            "tags": _words(cast("list[object]", tags)) if isinstance(tags, list) else told.tags,
            "metadata": metadata,
        }
    )
