"""Optimizers and how their learning rates fall."""

from importlib.util import find_spec
from typing import Any

from safelight.engines.training import TrainingOptions
from safelight.errors import DependencyMissingError, InvalidFieldValueError

NEEDED = {"AdamW8bit": "bitsandbytes", "Prodigy": "prodigyopt"}
"""Packages that are no part of an installation."""


def require_possible(options: TrainingOptions, device: str) -> None:
    """Refuse what this machine cannot do; loads nothing.

    Raises:
        InvalidFieldValueError: it needs CUDA.
        DependencyMissingError: it needs a package.
    """
    cuda = device.startswith("cuda")
    if options.optimizer == "AdamW8bit" and not cuda:
        raise InvalidFieldValueError(
            f"optimizer is AdamW8bit, which needs CUDA, and the device is {device}",
            "set optimizer to AdamW",
        )
    if options.mixed_precision == "bf16" and not cuda:
        raise InvalidFieldValueError(
            f"mixed_precision is bf16, which needs CUDA, and the device is {device}",
            "set mixed_precision to no",
        )
    package = NEEDED.get(options.optimizer)
    if package is not None and find_spec(package) is None:
        raise DependencyMissingError(
            f"optimizer {options.optimizer} needs the package {package}, which is not installed",
            f"run: pip install {package}; or set optimizer to AdamW",
        )


def optimizer_of(groups: list[dict[str, Any]], options: TrainingOptions) -> Any:  # noqa: ANN401
    """A new optimizer."""
    import torch

    if options.optimizer == "AdamW8bit":
        import bitsandbytes  # pyright: ignore[reportMissingImports]

        return bitsandbytes.optim.AdamW8bit(groups, weight_decay=options.weight_decay)
    if options.optimizer == "Prodigy":
        import prodigyopt  # pyright: ignore[reportMissingImports]

        return prodigyopt.Prodigy(groups, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=options.weight_decay)


def schedule_of(optimizer: Any, options: TrainingOptions) -> Any:  # noqa: ANN401
    """Its learning rate over all steps."""
    from diffusers.optimization import get_scheduler

    constant = options.lr_scheduler == "constant"
    named = "constant_with_warmup" if constant and options.lr_warmup_steps else options.lr_scheduler
    return get_scheduler(
        named,
        optimizer,
        num_warmup_steps=options.lr_warmup_steps,
        num_training_steps=options.max_train_steps,
        num_cycles=options.lr_scheduler_num_cycles,
    )
