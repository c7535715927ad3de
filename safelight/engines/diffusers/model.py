"""A diffusers pipeline that stays loaded, and the views of it that draw in different ways."""

import os
import threading
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account
from safelight.engines.diffusers.encodings import Encodings
from safelight.engines.diffusers.flow_files import open_flow
from safelight.engines.diffusers.folders import open_parts, said_of_assumed
from safelight.engines.diffusers.kernels import arranged
from safelight.engines.diffusers.quantising import quantise, quantised
from safelight.engines.diffusers.samplers import as_trained, scheduler_for
from safelight.engines.diffusers.single_files import NOISE, account_of_file
from safelight.engines.diffusers.stored import is_blocks
from safelight.engines.diffusers.tensors import first_not_finite, shapes_of, tensors_in
from safelight.engines.machine.device import resolve_device, torch_dtype
from safelight.engines.machine.loaded import loaded
from safelight.errors import InvalidFieldValueError, InvalidMediaError, PipelineError
from safelight.progress import note
from safelight.settings import settings
from safelight.weights.checkpoints import WeightsCard
from safelight.weights.hashing import files_of
from safelight.weights.json_files import read_object
from safelight.weights.layouts import is_second, write_layout
from safelight.weights.parts import ROLES, Part
from safelight.weights.pinned import pinned
from safelight.weights.places import STARTER, facts_file, models_folder
from safelight.weights.safety import safetensors_metadata, tensor_names
from safelight.weights.telling import PREDICTION, family_of

if TYPE_CHECKING:
    import torch

TEXT_TO_IMAGE, INPAINTING = "AutoPipelineForText2Image", "AutoPipelineForInpainting"


class DiffusionModel:
    """One loaded model; one run at a time, since schedulers and adapters are its state."""

    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401  (diffusers is untyped)
        card: WeightsCard,
        told: dict[str, object],
        account: Account,
    ) -> None:
        self.lock = threading.Lock()
        self.pipeline = pipeline
        self.name = card.name
        self._parts = card.parts
        self.own_scheduler = as_trained(
            pipeline.scheduler, card.prediction_type, card.zero_terminal_snr
        )
        self.told = told
        self.account = account
        self.views: dict[str, Any] = {}
        self.encodings = Encodings()
        self.apart: dict[tuple[object, ...], frozenset[str] | None] = {}
        """See `exactness`."""

    def say_account(self) -> None:
        """Note what of the model's files takes no part in its pictures, and what was assumed."""
        left = self.account.said()
        if left is not None:
            note(f"model {self.name}: took no part: {left}")
        assumed = said_of_assumed(self.account)
        if self._parts:
            note(f"model {self.name}: {', '.join(map(_placed, self._parts))}")
        if assumed is not None:
            note(f"model {self.name}: assumed, since its configs do not say: {assumed}")

    def view(self, auto_class: str, scheduler: str | None, controlnet: Any) -> Any:  # noqa: ANN401
        """The pipeline for one way of drawing, with a scheduler of its own."""
        import diffusers

        self._require_way(auto_class)
        told = {} if auto_class == TEXT_TO_IMAGE else self.told
        auto = getattr(diffusers, auto_class)
        if controlnet is not None:
            view = auto.from_pipe(self.pipeline, controlnet=controlnet, **told)
        elif auto_class in self.views:
            view = self.views[auto_class]
        else:
            view = auto.from_pipe(self.pipeline, **told)
            self.views[auto_class] = view
        view.set_progress_bar_config(disable=True)
        view.scheduler = scheduler_for(self.own_scheduler, scheduler)
        return view

    def _require_way(self, auto_class: str) -> None:
        """Refuse what the network was not made for.

        Raises:
            InvalidFieldValueError: a refiner is to draw from nothing, or a network that reads more
                than the picture is not given the rest.
        """
        if auto_class == TEXT_TO_IMAGE and self.told.get("requires_aesthetics_score"):
            raise InvalidFieldValueError(
                f"model {self.name} is a refiner, which works on pictures and draws none from text",
                "choose another model, or use it in refine or transform",
            )
        unet = getattr(self.pipeline, "unet", None)
        if unet is None:
            return
        reads, latent = int(unet.config.in_channels), int(self.pipeline.vae.config.latent_channels)
        fills = auto_class == INPAINTING and reads == 2 * latent + 1
        if reads != latent and not fills:
            made_for = {2 * latent: "edits by instruction", 2 * latent + 1: "inpainting"}
            raise InvalidFieldValueError(
                f"the network of model {self.name} reads {reads} channels, expected {latent}: it "
                f"was made for {made_for.get(reads, 'something else')}",
                "choose another model, or use it in inpaint"
                if reads == 2 * latent + 1
                else "choose another model",
            )


def _placed(part: Part) -> str:
    """For people: where a part of a model came from."""
    if part.path is None:
        return f"{part.role} is left out"
    folder = models_folder()
    inside = part.path.is_relative_to(folder)
    return f"{part.role} is {part.path.relative_to(folder) if inside else part.path.name}"


def model_of(card: WeightsCard) -> DiffusionModel:
    """The model of a card, loaded now unless it is in memory already.

    Raises:
        InvalidMediaError: its files cannot be loaded.
    """
    device = resolve_device()
    precision = settings().precision
    said = (card.prediction_type, card.zero_terminal_snr)  # beside the file, not in it
    eight_bits = quantised()
    key = ("diffusion", *card.weights, *said, device, precision, eight_bits, settings().compile)
    elsewhere = (part.path for part in card.parts if part.path is not None)
    size = card.file_size_bytes + sum(f.stat().st_size for p in elsewhere for f in files_of(p))
    return loaded(
        key, lambda: load_model(card, device, precision, eight_bits=bool(eight_bits)), size
    )


def load_model(
    card: WeightsCard, device: str, precision: str, *, eight_bits: bool = False
) -> DiffusionModel:
    """Load a model from its files.

    Args:
        card: of the model.
        device: where it computes.
        precision: what it computes in.
        eight_bits: whether its weights are kept as `quantise` keeps them.

    Raises:
        InvalidMediaError: they cannot be loaded.
        ChecksumMismatchError: they are not those that the card is of.
    """
    with quiet():
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

        dtype = torch_dtype(device, precision)
        try:
            with pinned(card.file_path, card.sha256, shipped=card.file_path == STARTER) as path:
                if path.is_dir():
                    parts, account = open_parts(path, dtype)
                    pipeline = AutoPipelineForText2Image.from_pretrained(
                        path,
                        torch_dtype=dtype,
                        local_files_only=True,
                        **_no_checker(path),
                        **parts,
                    )
                elif (family := family_of(path, tensor_names(path))) in ROLES:
                    pipeline, account = open_flow(path, card, str(family), dtype)
                else:
                    pipeline, account = _from_single_file(path, dtype, card)
                told = _told(path)
                if eight_bits:  # before the device, which may be too small for more
                    _require_finite(pipeline, card)
                    pipeline = quantise(pipeline).to(device)
                else:
                    pipeline = pipeline.to(device)
                    _require_finite(pipeline, card)
                pipeline = arranged(pipeline)
        except PipelineError:
            raise
        except Exception as error:
            raise InvalidMediaError(
                f"model {card.name} at {card.file_path} cannot be loaded: {str(error)[:300]}",
                "check that the folder is complete, or get the model again",
            ) from error
        return DiffusionModel(pipeline, card, told, account)


def _require_finite(pipeline: Any, card: WeightsCard) -> None:  # noqa: ANN401
    """Refuse weights that are no numbers, whose pictures would be black.

    Raises:
        InvalidMediaError: with the first of them.
    """
    import torch

    for part, module in pipeline.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        plain = {name: one for name, one in module.named_parameters() if not is_blocks(one)}
        first = first_not_finite(plain)  # of blocks, the scales were looked at
        if first is not None:
            raise InvalidMediaError(
                f"{part}.{first} of model {card.name} holds values that are no finite numbers",
                "get the model again, or set SAFELIGHT_PRECISION to bf16 or fp32",
            )


def _told(path: Path) -> dict[str, object]:
    """Flags of the index of a folder that get lost where its pipeline's class is changed."""
    if not path.is_dir():
        return {}
    index = read_object(path / "model_index.json")
    needed = index.get("requires_aesthetics_score") is True
    return {"requires_aesthetics_score": True} if needed else {}


def _no_checker(path: Path) -> dict[str, object]:
    """A safety checker is left out where the model does not bring its files."""
    if (path / "safety_checker").is_dir():
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _from_single_file(path: Path, dtype: "torch.dtype", card: WeightsCard) -> tuple[Any, Account]:
    import diffusers

    tensors = {
        name: tensor if name == NOISE else tensor.to("meta")  # the library reads them again
        for name, tensor in tensors_in(path).items()
    }
    _require_prediction(tensors, card)
    with TemporaryDirectory() as folder:
        name = write_layout(shapes_of(tensors), path.name, Path(folder))
        pipeline = getattr(diffusers, name).from_single_file(
            str(path), config=folder, torch_dtype=dtype, local_files_only=True
        )
    account = account_of_file(tensors, pipeline, path.name)
    fields = safetensors_metadata(path).keys() - {"format"}
    said = {f"metadata.{name}" for name in fields if name == PREDICTION}
    about = {f"metadata.{name}": "about the file" for name in sorted(fields - {PREDICTION})}
    return pipeline, Account(account.used | said, {**account.unused, **about})


def _require_prediction(names: Iterable[str], card: WeightsCard) -> None:
    """Refuse to guess what no file of Stable Diffusion 2 says, and half of them do either way."""
    if is_second(names) and card.prediction_type is None:
        raise InvalidMediaError(
            f"{card.file_path.name} is a Stable Diffusion 2, and nothing says whether its network "
            "predicts noise or velocity",
            f'write {{"prediction_type": "v_prediction"}} into {facts_file(card.file_path).name} '
            'beside it, or "epsilon" for one made for 512 px',
        )


@contextmanager
def quiet() -> Generator[None]:
    """The libraries warn about what is deprecated inside themselves; no news for our users."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no run waits for a hub it must not need
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
