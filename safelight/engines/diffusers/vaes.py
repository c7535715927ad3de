"""Opens VAEs of their own, single files and folders, for a model that has another one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.single_files import vae_layer
from safelight.engines.diffusers.tensors import first_not_finite, tensors_in
from safelight.weights.json_files import read_object

if TYPE_CHECKING:
    import torch

_START = "first_stage_model."
_TRAINING = ("loss.", "model_ema.", "discriminator.")
"""How tensors begin that only training needs."""


def open_vae(path: Path, own: Any) -> tuple[Any, Account]:  # noqa: ANN401  (diffusers is untyped)
    """A VAE that can stand in for a model's own, with what became of its tensors.

    Args:
        path: a single file, by the first authors' names or diffusers', or a folder.
        own: the model's, whose config a single file takes, since it has none.

    Raises:
        ValueError: it is of another class or size than the model's, lacks tensors, or holds values
            that are no finite numbers.
    """
    made, account = _of_folder(path, own) if path.is_dir() else _of_file(path, own)
    for what, has, wants in zip(("channels", "levels"), _size(made), _size(own), strict=True):
        if has != wants:
            raise ValueError(f"its latents have {has} {what}, the model's {wants}")
    first = first_not_finite(dict(made.named_parameters()))
    if first is not None:
        raise ValueError(f"{first} holds values that are no finite numbers")
    return made.eval(), account


def form_of(vae: Any) -> str:  # noqa: ANN401
    """Everything that a single file takes over from a model's own VAE."""
    config = {name: value for name, value in dict(vae.config).items() if name[0] != "_"}
    return f"{type(vae).__name__} {sorted(config.items())}"


def _size(vae: Any) -> tuple[int, int]:  # noqa: ANN401
    """Channels of latents, and how often a picture is halved, and once more."""
    return int(vae.config["latent_channels"]), len(vae.config["block_out_channels"])


def _of_folder(path: Path, own: Any) -> tuple[Any, Account]:  # noqa: ANN401
    named, expected = read_object(path / "config.json").get("_class_name"), type(own).__name__
    if named != expected:
        raise ValueError(f"it is of class {named}, the model's of {expected}")
    made, told = type(own).from_pretrained(path, local_files_only=True, output_loading_info=True)
    _require_whole(told["missing_keys"])
    unused = dict.fromkeys(told["unexpected_keys"], "a VAE has no such tensor")
    return made, Account(frozenset(made.state_dict()), unused)


def _of_file(path: Path, own: Any) -> tuple[Any, Account]:  # noqa: ANN401
    levels = len(own.config["block_out_channels"])
    made = type(own).from_config(dict(own.config))
    expected = made.state_dict()
    filled: dict[str, torch.Tensor] = {}
    unused: dict[str, str] = {}
    for name, tensor in tensors_in(path).items():
        place = vae_layer(name.removeprefix(_START), levels)
        if place not in expected or place in filled:
            training = name.removeprefix(_START).startswith(_TRAINING)
            unused[name] = "of the training" if training else "a VAE has no such tensor"
            continue
        wanted = tuple(expected[place].shape)
        # attention was written as convolutions of 1x1 once
        fitted = tensor[:, :, 0, 0] if tensor.ndim == 4 and len(wanted) == 2 else tensor
        if tuple(fitted.shape) != wanted:
            raise ValueError(f"{name} is {tuple(fitted.shape)}, the model's VAE has {wanted}")
        filled[place] = fitted
    _require_whole(sorted(expected.keys() - filled.keys()))
    made.load_state_dict(filled)
    return made, Account(frozenset(filled), unused)


def _require_whole(lacking: list[str]) -> None:
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} tensors: {several(lacking)}")
