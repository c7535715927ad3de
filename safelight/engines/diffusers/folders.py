"""Opens a diffusers folder part by part, and accounts for what its files and configs say."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.accounts import Account, several
from safelight.errors import InvalidMediaError
from safelight.weights.json_files import read_object

if TYPE_CHECKING:
    import torch

FIRST = {
    "scheduler": ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps"),
    "unet": (
        *("act_fn", "attention_head_dim", "block_out_channels", "center_input_sample"),
        *("cross_attention_dim", "down_block_types", "downsample_padding", "flip_sin_to_cos"),
        *("freq_shift", "in_channels", "layers_per_block", "mid_block_scale_factor", "norm_eps"),
        *("norm_num_groups", "out_channels", "up_block_types"),
    ),
    "vae": (
        *("act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels"),
        *("layers_per_block", "out_channels", "up_block_types", "scaling_factor"),
    ),
    "text_encoder": (
        *("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "vocab_size"),
        *("num_attention_heads", "num_hidden_layers", "max_position_embeddings"),
    ),
}
"""Fields that the first published configs have already: where one is left out, what a class assumes
need not be true of the model. Later ones were added so that it is."""
_OF_LIBRARIES = frozenset(
    {"architectures", "model_type", "torch_dtype", "dtype", "transformers_version"}
)
"""Fields of transformers' configs that say which class they are for, not what it does."""


def open_parts(folder: Path, dtype: "torch.dtype") -> tuple[dict[str, Any], Account]:
    """The networks of a folder, for its pipeline, and what became of all that the folder says.

    Raises:
        InvalidMediaError: a network lacks tensors, whose numbers would be made up.
    """
    opened: dict[str, Any] = {}
    used: set[str] = set()
    unused: dict[str, str] = {}
    assumed: dict[str, object] = {}
    for part, kind in _kinds_of(folder).items():
        if _config_of(folder / part) is None:
            continue
        if hasattr(kind, "state_dict"):
            opened[part], said = open_part(folder / part, part, kind, dtype)
        else:
            said = account_of_part(folder / part, kind, None, ())
        used.update(f"{part}.{name}" for name in said.used)
        unused.update({f"{part}.{name}": why for name, why in said.unused.items()})
        assumed.update({f"{part}.{name}": value for name, value in said.assumed.items()})
    return opened, Account(frozenset(used), unused, assumed)


def open_part(
    folder: Path,
    part: str,
    kind: Any,  # noqa: ANN401  (diffusers is untyped)
    dtype: "torch.dtype",
) -> tuple[Any, Account]:
    """A network of a folder, and what became of its tensors and the fields of its config.

    Raises:
        InvalidMediaError: it lacks tensors, whose numbers would be made up.
    """
    of_library = "dtype" if kind.__module__.startswith("transformers.") else "torch_dtype"
    opened, told = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, **{of_library: dtype}
    )
    _require_whole(folder.parent, part, told)
    return opened, account_of_part(folder, kind, opened, set(told["unexpected_keys"]))


def account_of_part(
    folder: Path,
    kind: Any,  # noqa: ANN401  (diffusers is untyped)
    module: Any,  # noqa: ANN401
    unexpected: Iterable[str],
) -> Account:
    """What became of one part: of its tensors, and of the fields of its config.

    Args:
        folder: of the part.
        kind: its class.
        module: the part as it was opened; None where it holds no tensors.
        unexpected: names of tensors in its file that the class has no place for.
    """
    unused = dict.fromkeys(sorted(unexpected), "the model has no such tensor")
    used = set[str]() if module is None else set(module.state_dict())
    config, known = _config_of(folder) or {}, _fields_of(kind)
    for name in config:
        if known is None or name in known or name in _OF_LIBRARIES:
            used.add(name)
        else:
            unused[name] = f"{kind.__name__} has no such field"
    assumed = {name: value for name, value in (known or {}).items() if name not in config}
    return Account(frozenset(used), unused, assumed)


def _kinds_of(folder: Path) -> dict[str, Any]:
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    found: dict[str, Any] = {}
    for part, named in read_object(folder / "model_index.json").items():
        if not isinstance(named, list) or len(cast("list[object]", named)) != 2:
            continue
        library, kind = cast("list[object]", named)
        module = libraries.get(str(library))
        if module is not None and hasattr(module, str(kind)):
            found[part] = getattr(module, str(kind))
    return found


def _config_of(folder: Path) -> dict[str, Any] | None:
    for file in ("config.json", "scheduler_config.json"):
        if (folder / file).is_file():
            held = read_object(folder / file)
            return {name: value for name, value in held.items() if not name.startswith("_")}
    return None  # a tokenizer


def _fields_of(kind: Any) -> dict[str, object] | None:  # noqa: ANN401
    """The fields that a class reads, with what it assumes; None where it takes any."""
    config = getattr(kind, "config_class", None)
    if config is not None:
        of_all = config.__mro__[1]().to_dict()
        return {name: value for name, value in config().to_dict().items() if name not in of_all}
    if not hasattr(kind, "register_to_config"):
        return None
    taken = inspect.signature(kind.__init__).parameters.values()
    return {
        each.name: each.default
        for each in taken
        if each.name != "self" and each.kind is not each.VAR_KEYWORD
    }


def said_of_assumed(account: Account) -> str | None:
    """For people: what was assumed in place of fields that the first configs say already."""
    first = {f"{part}.{name}" for part, names in FIRST.items() for name in names}
    return ", ".join(f"{name} {v}" for name, v in account.assumed.items() if name in first) or None


def _require_whole(folder: Path, part: str, told: dict[str, Any]) -> None:
    lacking = sorted(str(name) for name in told["missing_keys"])
    if lacking:
        raise InvalidMediaError(
            f"{part} of model {folder.name} lacks {len(lacking)} tensors: {several(lacking)}",
            "get the whole model again",
        )
