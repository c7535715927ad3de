"""Enlarges and restores faces with files that people bring, of any architecture spandrel knows.

Source:
    spandrel (chaiNNer), MIT licence: architectures and how they are told apart. Files are read by
    us: its own loader is given tensors, never a file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import ValidationError

from safelight.confined.calling import call_confined
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import EnlargeRequest, LocalEngine, Request
from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.engines.machine.enlarging import Enlarger
from safelight.engines.machine.loaded import loaded
from safelight.engines.mending import RestoreRequest
from safelight.engines.spandrel_nets.library import require_installed, versions
from safelight.engines.spandrel_nets.told import Upscaler
from safelight.errors import DependencyMissingError, InvalidFieldValueError, InvalidMediaError
from safelight.pixels import Pixels
from safelight.remembered import Remembered
from safelight.settings import settings
from safelight.weights.add_ons import UPSCALERS, find_add_on
from safelight.weights.hashing import weights_sha256
from safelight.weights.kinds import FOLDERS, ModelType
from safelight.weights.pinned import pinned
from safelight.weights.places import models_folder
from safelight.weights.registry import registry
from safelight.weights.used import use

if TYPE_CHECKING:
    import torch

    from safelight.engines.spandrel_nets.network import SpandrelRunner

REVISION = 1
"""Raised when our arithmetic changes a pixel."""
CHANNELS = ((1, 1), (3, 3), (4, 4))
"""In and out: grey, colours, colours with transparency."""
_known = Remembered("upscalers.json")


@dataclass(frozen=True)
class Found:
    """A network that a request names."""

    path: Path
    """Its file."""
    sha256: str
    """Of it."""
    told: Upscaler
    """What it is."""


class Spandrel(LocalEngine):
    """Enlarges and restores faces with files of the models folder."""

    engine_id: ClassVar[str] = "spandrel"

    def identity(self, request: Request) -> EngineIdentity:
        """Libraries and the file.

        Raises:
            DependencyMissingError: there is no such file, or no spandrel.
            InvalidFieldValueError: it does not enlarge, or not so far, or restores no faces.
            UnsafePickleError: the file could run code.
        """
        found = _found(request)
        return EngineIdentity(
            engine_id=self.engine_id,
            version=f"{versions()}+{REVISION}",
            weights=(found.sha256,),
            device_class=device_class(),
        )

    def open_enlarger(self, request: EnlargeRequest) -> Enlarger:
        """Get ready to enlarge; the network is loaded once per process.

        Raises:
            PipelineError: as `identity`.
        """
        found = _found(request)
        runner = _runner(found)
        return Enlarger(runner, runner, request.factor, request.tile, request.denoise)

    def restore_face(self, request: RestoreRequest, face: Pixels) -> Pixels:
        """Mend one face; the network is loaded once per process.

        Raises:
            PipelineError: as `identity`.
            OutOfMemoryError: too little memory.
        """
        from safelight.engines.spandrel_nets.opening import opened
        from safelight.engines.spandrel_nets.restoring import Restorer

        found, device = _found(request), resolve_device()
        size = found.told.parameters * 4

        def load() -> Restorer:
            with pinned(found.path, found.sha256) as path:
                return Restorer(opened(path), device)

        restorer = loaded(("spandrel face", found.sha256, device), load, size)
        return restorer.restore(face)


def network_of(path: Path) -> Upscaler:
    """What the network in a file is, found out in a process with limits; nothing is loaded here.

    Raises:
        DependencyMissingError: spandrel, or what it needs, is not installed.
        InvalidMediaError: of no architecture that is known, or damaged.
        UnsafePickleError: the file could run code.
    """
    require_installed()
    return _told(path, weights_sha256(path))


def _runner(found: Found) -> "SpandrelRunner":
    from safelight.engines.spandrel_nets.network import SpandrelRunner
    from safelight.engines.spandrel_nets.opening import opened

    device = resolve_device()
    dtype = _dtype_of(found.told, device)

    def load() -> SpandrelRunner:
        with pinned(found.path, found.sha256) as path:
            return SpandrelRunner(opened(path), device, dtype)

    key = ("spandrel", found.sha256, device, str(dtype))
    return loaded(key, load, found.told.parameters * dtype.itemsize)


def _dtype_of(told: Upscaler, device: str) -> "torch.dtype":
    """That of the settings where the architecture supports it, else fp32."""
    import torch

    wanted = torch_dtype(device, settings().precision)
    fits = {torch.float16: told.supports_half, torch.bfloat16: told.supports_bfloat16}
    return wanted if fits.get(wanted, True) else torch.float32


def _found(request: Request) -> Found:
    if isinstance(request, EnlargeRequest):
        path = find_add_on(FOLDERS[ModelType.UPSCALER], request.model)
    elif isinstance(request, RestoreRequest):
        path = _restorer(request.model)
    else:
        raise TypeError(
            f"spandrel enlarges and restores faces, it cannot serve a {type(request).__name__}"
        )
    require_installed()
    if path.is_dir():
        raise InvalidMediaError(
            f"{path.name} is a folder, expected a file",
            "name the .pth or .safetensors file itself",
        )
    sha256 = weights_sha256(path)
    told = _told(path, sha256)
    if isinstance(request, EnlargeRequest):
        _require_enlarges(request, told)
    else:
        _require_restores(path.name, told)
    use(path, sha256)
    return Found(path, sha256, told)


def _restorer(name: str | None) -> Path:
    """The file of a restorer; the first without a name.

    Raises:
        DependencyMissingError: there is none, or none of that name.
    """
    kind = FOLDERS[ModelType.RESTORER]
    if name is not None:
        return find_add_on(kind, name)
    folder = models_folder() / kind
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    there = [each.name for each in files if each.suffix.lower() in UPSCALERS]
    there = there or sorted(info.name for info in registry().list_models(ModelType.RESTORER))
    if not there:
        raise DependencyMissingError(
            f"there is no network that restores faces in {folder}",
            f"put GFPGANv1.4.pth, RestoreFormer.pth or another file of these two into {folder}, "
            "or set detail.restore_faces to false",
        )
    return find_add_on(kind, there[0])


def _told(path: Path, sha256: str) -> Upscaler:
    """What a file is: found out in a process with limits, once for each content."""
    key = f"{sha256} {versions()}"
    try:
        return Upscaler.model_validate(_known.get(key))
    except ValidationError:
        pass
    from safelight.engines.spandrel_nets.opening import look

    with pinned(path, sha256) as view:
        size = view.stat().st_size
        told, _ = call_confined(look, str(view), name=path.name, file_bytes=size)
    _known.put(key, cast(object, told.model_dump(mode="json")))
    return told


def _require_enlarges(request: EnlargeRequest, told: Upscaler) -> None:
    named = f"model {request.model} ({told.architecture})"
    if told.purpose != "SR" or told.scale < 2:
        what = {"FaceSR": "mends cut-out faces", "Inpainting": "fills holes"}
        raise InvalidFieldValueError(
            f"{named} {what.get(told.purpose, 'cleans pictures and keeps their size')}, "
            "expected one that enlarges",
            "choose an upscaler as model",
        )
    if (told.input_channels, told.output_channels) not in CHANNELS:
        raise InvalidFieldValueError(
            f"{named} takes {told.input_channels} channels and makes {told.output_channels}, "
            "expected 3, 1 or 4 of both",
            "choose an upscaler of colours as model",
        )
    if request.factor > told.scale:
        raise InvalidFieldValueError(
            f"{named} enlarges {told.scale} times, upscale_factor is {request.factor}",
            f"lower upscale_factor to {told.scale}, or choose another model",
        )


def _require_restores(name: str, told: Upscaler) -> None:
    colours = told.input_channels == told.output_channels == 3
    if told.purpose != "FaceSR" or told.scale != 1 or not colours:
        raise InvalidFieldValueError(
            f"{name} ({told.architecture}) restores no faces",
            "name a file of GFPGAN, RestoreFormer or CodeFormer as restorer",
        )


ENGINE = Spandrel()
