"""Tells whose face it is, by a file of FaceNet in the models folder."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import Face, LocalEngine, Request
from safelight.engines.judging import EmbedRequest
from safelight.engines.machine.device import device_class, resolve_device
from safelight.engines.machine.loaded import loaded
from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.installed import version
from safelight.pixels import Floats, Pixels
from safelight.weights.add_ons import find_add_on
from safelight.weights.hashing import weights_sha256
from safelight.weights.pinned import pinned
from safelight.weights.places import models_folder

if TYPE_CHECKING:
    from safelight.engines.facenet.network import InceptionResnet

REVISION = 1
"""Raised when the same face gets another vector."""
FOLDER = "face_recognition"
ENDS = (".pt", ".safetensors")
SIDE = 160
"""Of the crops that the network was trained on, px."""
MIDDLE, SPREAD = 127.5, 128.0
"""What its levels were made of."""


class FaceNet(LocalEngine):
    """512 values that say whose face it is."""

    engine_id: ClassVar[str] = "facenet"

    def identity(self, request: Request) -> EngineIdentity:
        """Torch, and the sha256 of the file.

        Raises:
            DependencyMissingError: there is no such file.
        """
        path = _found(request.model if isinstance(request, EmbedRequest) else None)
        return EngineIdentity(
            engine_id="facenet",
            version=f"{REVISION}.torch{version('torch')}",
            weights=(weights_sha256(path),),
            device_class=device_class(),
        )

    def embed_face(self, request: EmbedRequest, image: Pixels, face: Face) -> Floats:
        """Of the crop that its box tells, as the network was trained.

        Raises:
            DependencyMissingError: there is no such file.
            InvalidMediaError: it is no file of this network.
        """
        import torch

        path, device = _found(request.model), resolve_device()
        sha256 = weights_sha256(path)
        size = path.stat().st_size
        network = loaded(("facenet", sha256, device), lambda: _opened(path, sha256, device), size)
        height, width = image.shape[:2]
        box = (
            max(0, int(face.left)),
            max(0, int(face.top)),
            min(width, int(face.right) + 1),
            min(height, int(face.bottom) + 1),
        )
        crop = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX, box)
        levels = (np.asarray(crop, np.float32) - MIDDLE) / SPREAD
        with torch.inference_mode():
            given = torch.from_numpy(levels).permute(2, 0, 1)[None].to(device)
            return network(given)[0].float().cpu().numpy()


def _found(name: str | None) -> Path:
    folder = models_folder() / FOLDER
    if name is None:
        there = sorted(each.stem for each in folder.glob("*") if each.suffix.lower() in ENDS)
        if not there:
            raise DependencyMissingError(
                f"there is no file that tells faces in {folder}",
                "put 20180402-114759-vggface2.pt there, which the project facenet-pytorch has on "
                "its page of releases (MIT licence)",
            )
        name = there[0]
    return find_add_on(FOLDER, name)


def _opened(path: Path, sha256: str, device: str) -> "InceptionResnet":
    import torch
    from safetensors.torch import load_file

    from safelight.engines.facenet.network import InceptionResnet

    network = InceptionResnet()
    try:
        with pinned(path, sha256) as kept:
            if path.suffix.lower() == ".safetensors":
                tensors = load_file(kept)
            else:
                tensors = torch.load(kept, map_location="cpu", weights_only=True)
        used = {name: each for name, each in tensors.items() if not name.startswith("logits.")}
        network.load_state_dict(used)
    except (RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise InvalidMediaError(
            f"{path.name} is no file of Inception-ResNet v1 as facenet-pytorch has it: "
            f"{str(error)[:200]}",
            "get 20180402-114759-vggface2.pt again",
        ) from error
    return network.eval().to(device)


ENGINE = FaceNet()
