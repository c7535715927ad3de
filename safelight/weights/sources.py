"""Where models are fetched from, and what is told about them there before anything is fetched."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import SecretStr

from safelight.errors import DownloadFailedError, InvalidFieldValueError, MissingFileError
from safelight.settings import settings
from safelight.weights.kinds import ModelType

AskJson = Callable[[str, SecretStr | None], Mapping[str, object]]
"""From an address and a token for its host to the JSON object that is there."""
LinkS3 = Callable[[str, str], str]
"""From a bucket and a key to an address that anybody may read from for a while."""
_HF = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<path>[^@]+?)(?:@(?P<rev>[\w./-]+))?")
_HF_PAGE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<rev>[^/]+)/(?P<path>.+)")
_CIVITAI_FILE = re.compile(r"/api/download/models/(\d+)")
_CIVITAI_KINDS = {
    "Checkpoint": ModelType.CHECKPOINT,
    "LORA": ModelType.LORA,
    "LoCon": ModelType.LORA,
    "DoRA": ModelType.LORA,
    "TextualInversion": ModelType.EMBEDDING,
    "VAE": ModelType.VAE,
    "Controlnet": ModelType.CONTROLNET,
    "Upscaler": ModelType.UPSCALER,
}
_CIVITAI_MODELS = (("SDXL", "sdxl"), ("SD 3", "sd3"), ("SD ", "sd"), ("Flux", "flux"))
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Source:
    """One file to fetch."""

    address: str
    """For people and records; holds no secret."""
    url: str
    """What is asked first; may hold a signature."""
    file_name: str
    """Of the file there."""
    token: SecretStr | None = None
    """For the host of the address alone."""
    size: int | None = None
    """Bytes, as far as it is told."""
    sha256: str | None = None
    """As far as it is told."""
    licence: str | None = None
    """As far as it is told."""
    base_model: str | None = None
    """Family."""
    model_type: ModelType | None = None
    """What it is for."""
    trigger_words: tuple[str, ...] = ()
    """As its maker names them."""


def source_of(address: str, ask: AskJson, link: LinkS3, *, known: bool = False) -> Source:
    """What an address leads to.

    Args:
        address: https://..., s3://BUCKET/KEY, hf:OWNER/NAME/FILE[@REVISION] or civitai:VERSION;
            pages of Hugging Face and Civitai too.
        ask: reads what a hub tells.
        link: signs addresses of S3.
        known: whether a card tells the rest, so that a hub need not be asked.

    Raises:
        InvalidFieldValueError: no such address.
        PipelineError: what a hub answers.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "hf":
        found = _HF.fullmatch(rest)
        if found is not None:
            return _hugging_face(found["repo"], found["path"], found["rev"] or "main", ask, known)
    elif scheme == "civitai" and rest.isdigit():
        return _civitai(rest, ask)
    elif scheme == "s3":
        return _s3(address, link)
    elif scheme in ("https", "http"):
        return _web(address, ask, known)
    raise InvalidFieldValueError(
        f"{address[:120]!r} is no address of a model",
        "write https://..., s3://BUCKET/KEY, hf:OWNER/NAME/FILE or civitai:VERSION",
    )


def _web(address: str, ask: AskJson, known: bool) -> Source:
    parts = urlsplit(address)
    hub, civitai = urlsplit(settings().hf_endpoint), urlsplit(settings().civitai_endpoint)
    if parts.netloc == hub.netloc:
        page = _HF_PAGE.fullmatch(unquote(parts.path))
        if page is not None:
            return _hugging_face(page["repo"], page["path"], page["rev"], ask, known)
    if parts.netloc == civitai.netloc:
        named = _CIVITAI_FILE.fullmatch(parts.path)
        version = named[1] if named else parse_qs(parts.query).get("modelVersionId", [""])[0]
        if version.isdigit():
            return _civitai(version, ask)
    name = unquote(parts.path).rpartition("/")[2]
    host = parts.netloc.rpartition("@")[2]
    return Source(address=f"{parts.scheme}://{host}{parts.path}", url=address, file_name=name)


def _s3(address: str, link: LinkS3) -> Source:
    parts = urlsplit(address)
    key = parts.path.lstrip("/")
    if not parts.netloc or not key:
        raise InvalidFieldValueError(f"{address[:120]!r} names no object", "write s3://BUCKET/KEY")
    return Source(address, link(parts.netloc, key), key.rpartition("/")[2])


def _hugging_face(repo: str, path: str, revision: str, ask: AskJson, known: bool) -> Source:
    base, token = settings().hf_endpoint.rstrip("/"), settings().hf_token
    file, name = quote(path), path.rpartition("/")[2]
    address = f"hf:{repo}/{path}@{revision}"
    if known:
        return Source(address, f"{base}/{repo}/resolve/{quote(revision, '')}/{file}", name, token)
    about = ask(f"{base}/api/models/{repo}/revision/{quote(revision, '')}?blobs=true", token)
    commit = about.get("sha")
    pinned = commit if isinstance(commit, str) else revision
    entry = next((e for e in _objects(about.get("siblings")) if e.get("rfilename") == path), None)
    if entry is None:
        raise MissingFileError(f"{repo} at {revision} has no file {path}", "correct the address")
    lfs = _object(entry.get("lfs"))
    size = entry.get("size")
    return Source(
        address=f"hf:{repo}/{path}@{pinned}",
        url=f"{base}/{repo}/resolve/{quote(pinned, '')}/{file}",
        file_name=name,
        token=token,
        size=size if isinstance(size, int) else None,
        sha256=_digest(lfs.get("sha256")),
        licence=_licence(_object(about.get("cardData"))),
    )


def _licence(card: Mapping[str, object]) -> str | None:
    """The name that its makers gave, where it is none of the hub's list."""
    for field in ("license_name", "license"):
        found = card.get(field)
        if isinstance(found, str) and found.strip() and found.lower() != "other":
            return found.strip()[:200]
    return None


def _civitai(version: str, ask: AskJson) -> Source:
    base, token = settings().civitai_endpoint.rstrip("/"), settings().civitai_token
    about = ask(f"{base}/api/v1/model-versions/{version}", token)
    files = _objects(about.get("files"))
    file = next((f for f in files if f.get("primary")), files[0] if files else None)
    if file is None or not isinstance(file.get("name"), str):
        raise DownloadFailedError(
            f"civitai tells of no file of version {version}", "look at the page of the model"
        )
    said = about.get("baseModel")
    family = str(said) if isinstance(said, str) else ""
    words = about.get("trainedWords")
    kind = _object(about.get("model")).get("type")
    model = about.get("modelId")
    permits = ask(f"{base}/api/v1/models/{model}", token) if isinstance(model, int) else {}
    return Source(
        address=f"civitai:{version}",
        url=f"{base}/api/download/models/{version}",
        file_name=str(file["name"]),
        token=token,
        sha256=_digest(_object(file.get("hashes")).get("SHA256")),
        licence=_permitted(permits),
        base_model=next((o for start, o in _CIVITAI_MODELS if family.startswith(start)), None),
        model_type=_CIVITAI_KINDS.get(str(kind)),
        trigger_words=tuple(w for w in cast("list[object]", words) if isinstance(w, str))
        if isinstance(words, list)
        else (),
    )


def _permitted(model: Mapping[str, object]) -> str | None:
    """What its page permits, which stands there in place of a licence."""
    allowed = model.get("allowCommercialUse")
    if allowed is None:
        return None
    uses = cast("list[object]", allowed) if isinstance(allowed, list) else [allowed]
    named = [str(use)[:40] for use in uses if use not in ("None", "")]
    return f"Civitai, commercial use: {', '.join(named)}" if named else "Civitai, non-commercial"


def _digest(found: object) -> str | None:
    return found.lower() if isinstance(found, str) and _SHA256.fullmatch(found) else None


def _object(found: object) -> Mapping[str, object]:
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _objects(found: object) -> list[Mapping[str, object]]:
    listed = cast("list[object]", found) if isinstance(found, list) else []
    return [_object(each) for each in listed]
