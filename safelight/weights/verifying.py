"""Reads models whole, to tell whether they are still what they were."""

from pydantic import BaseModel, ConfigDict

from safelight.digests import sha256_of
from safelight.errors import PipelineError
from safelight.weights.hashing import combined, files_of
from safelight.weights.registry import ModelInfo, registry
from safelight.weights.safety import check_weights


class Verified(BaseModel):
    """What became of one look."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the model."""
    ok: bool
    """Whether it is whole, and the same as before."""
    found: str
    """For people."""
    sha256: str | None = None
    """That it has now."""


def verified(info: ModelInfo) -> Verified:
    """Read every byte of a model, whatever is known of it, and look into it."""
    path = info.file_path
    try:
        if path.is_dir():
            hashes = {f.relative_to(path).as_posix(): sha256_of(f) for f in files_of(path)}
            found = combined(hashes)
        else:
            found = sha256_of(path)
        check_weights(path)
    except PipelineError as error:
        return Verified(name=info.name, ok=False, found=str(error))
    except OSError as error:
        return Verified(name=info.name, ok=False, found=f"cannot be read: {error.strerror}")
    published = info.metadata.get("published_sha256")
    for what, known in (("published", published), ("scanned", info.sha256)):
        if isinstance(known, str) and known != found:
            said = f"has sha256 {found}, it was {known} when it was {what}"
            return Verified(name=info.name, ok=False, found=said, sha256=found)
    if info.sha256 is None:
        registry().hashed(path, found)
    return Verified(name=info.name, ok=True, found=f"whole, sha256 {found}", sha256=found)
