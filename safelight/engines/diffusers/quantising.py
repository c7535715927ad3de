"""Networks whose weights are kept in eight bits, through torchao: half or a quarter of the memory.

Each row of a layer's weight has a scale; layers compute in the precision that is set.
"""

import importlib
import warnings
from importlib.util import find_spec
from typing import Any

from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.installed import version
from safelight.settings import settings

PACKAGE, LOCK = "torchao", "requirements/quantise.lock"
_PARTS = ("unet", "transformer", "text_encoder_2", "text_encoder_3")
_TEXT = "T5EncoderModel"
"""The one text encoder that is large."""


def quantised() -> str:
    """Part of the engine's version where weights are kept in eight bits, which changes pictures.

    Raises:
        DependencyMissingError: the package that does it is not installed.
    """
    if settings().quantise == "none":
        return ""
    if find_spec(PACKAGE) is None:
        raise DependencyMissingError(
            f"SAFELIGHT_QUANTISE is {settings().quantise}, which needs the package {PACKAGE}, and "
            "it is not installed",
            f"run: pip install --no-deps --require-hashes -r {LOCK}; or set SAFELIGHT_QUANTISE to "
            "none",
        )
    return f".{settings().quantise}.{PACKAGE}{version(PACKAGE)}"


def quantise(pipeline: Any) -> Any:  # noqa: ANN401  (diffusers is untyped)
    """Keep the weights of what draws, and of T5, in eight bits from now on; as is set, or none.

    Raises:
        DependencyMissingError: the package that does it is not installed.
    """
    if not quantised():
        return pipeline
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about itself
        library: Any = importlib.import_module(f"{PACKAGE}.quantization")
    for part in _PARTS:
        module = getattr(pipeline, part, None)
        if module is None or (part.startswith("text") and type(module).__name__ != _TEXT):
            continue
        # layers in blocks of GGUF are small already
        library.quantize_(
            module,
            library.Int8WeightOnlyConfig(),
            filter_fn=lambda layer, _: type(layer) is torch.nn.Linear,
        )
    return pipeline


def require_whole_weights(model: str, what: str) -> None:
    """Refuse what writes into the weights of a model that is kept in eight bits.

    Raises:
        InvalidFieldValueError: with what it is.
    """
    if settings().quantise != "none":
        raise InvalidFieldValueError(
            f"{what} is written into the weights of model {model}, and SAFELIGHT_QUANTISE keeps "
            "them in eight bits",
            f"set SAFELIGHT_QUANTISE to none, or leave the {what} out",
        )
