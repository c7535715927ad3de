"""What models are for, and the folders that people keep each kind in."""

from enum import StrEnum

from safelight.errors import InvalidFieldValueError


class ModelType(StrEnum):
    """What a model is for."""

    CHECKPOINT = "checkpoint"
    LORA = "lora"
    EMBEDDING = "embedding"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    CONTROLNET = "controlnet"
    IP_ADAPTER = "ip_adapter"
    UPSCALER = "upscaler"
    INTERPOLATOR = "interpolator"
    DETECTOR = "detector"
    RESTORER = "restorer"


FOLDERS = {
    ModelType.CHECKPOINT: "",
    ModelType.LORA: "loras",
    ModelType.EMBEDDING: "embeddings",
    ModelType.VAE: "vae",
    ModelType.TEXT_ENCODER: "text_encoders",
    ModelType.CONTROLNET: "controlnet",
    ModelType.IP_ADAPTER: "ip_adapter",
    ModelType.UPSCALER: "upscalers",
    ModelType.INTERPOLATOR: "interpolators",
    ModelType.DETECTOR: "detectors",
    ModelType.RESTORER: "restorers",
}
"""Where each kind lies below the models folder."""
_OTHER_FOLDERS = {
    "checkpoints": ModelType.CHECKPOINT,
    "diffusion_models": ModelType.CHECKPOINT,
    "stable-diffusion": ModelType.CHECKPOINT,
    "unet": ModelType.CHECKPOINT,
    "clip": ModelType.TEXT_ENCODER,
    "lora": ModelType.LORA,
    "lycoris": ModelType.LORA,
    "embedding": ModelType.EMBEDDING,
    "textual_inversion": ModelType.EMBEDDING,
    "control_net": ModelType.CONTROLNET,
    "ip-adapter": ModelType.IP_ADAPTER,
    "ipadapter": ModelType.IP_ADAPTER,
    "upscale_models": ModelType.UPSCALER,
    "upscaler": ModelType.UPSCALER,
    "esrgan": ModelType.UPSCALER,
    "realesrgan": ModelType.UPSCALER,
    "swinir": ModelType.UPSCALER,
    "interpolator": ModelType.INTERPOLATOR,
    "rife": ModelType.INTERPOLATOR,
    "detector": ModelType.DETECTOR,
    "adetailer": ModelType.DETECTOR,
    "ultralytics": ModelType.DETECTOR,
    "restorer": ModelType.RESTORER,
    "facerestore_models": ModelType.RESTORER,
    "face_restoration": ModelType.RESTORER,
    "gfpgan": ModelType.RESTORER,
    "codeformer": ModelType.RESTORER,
    "restoreformer": ModelType.RESTORER,
}
"""What ComfyUI, InvokeAI and Stable Diffusion web UI call them."""
_BY_FOLDER = {name: kind for kind, name in FOLDERS.items() if name} | _OTHER_FOLDERS


def model_type(name: "str | ModelType") -> ModelType:
    """The kind of this name.

    Raises:
        InvalidFieldValueError: there is none.
    """
    try:
        return ModelType(name)
    except ValueError as error:
        known = ", ".join(ModelType)
        raise InvalidFieldValueError(
            f"model_type is {str(name)[:80]!r}, expected one of {known}", "correct model_type"
        ) from error


def kind_by_folder(parts: tuple[str, ...]) -> ModelType | None:
    """What the folders that a model lies in are for, the nearest first; None where none tells."""
    return next(
        (_BY_FOLDER[part.lower()] for part in reversed(parts) if part.lower() in _BY_FOLDER), None
    )
