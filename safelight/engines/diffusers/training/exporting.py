"""What was learnt as a file that AUTOMATIC1111, ComfyUI and diffusers read.

Keys are those of kohya's scripts for models with a UNet (`lora_unet_` and the path with
underscores), and those of diffusers (`transformer.` and the path) for others. Metadata are theirs
(`ss_`, `sshs_`) and Stability's modelspec 1.0.1. No clock goes in: the same training is the same
file.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.training.tensor_files import tensor_bytes
from safelight.engines.training import DatasetOptions, ExportFacts, TrainingOptions

if TYPE_CHECKING:
    import torch

_ARCHITECTURES = {
    "StableDiffusionPipeline": ("stable-diffusion-v1", "sd_v1"),
    "StableDiffusionXLPipeline": ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
    "StableDiffusion3Pipeline": ("stable-diffusion-3-medium", "sd3"),
    "FluxPipeline": ("flux-1-dev", "flux1"),
}
"""Of modelspec and of `ss_base_model_version`, by pipeline."""
_ENDS = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}


def lora_bytes(
    weights: "Mapping[str, torch.Tensor]",
    trained: Mapping[str, Any],
    facts: ExportFacts,
) -> bytes:
    """The file.

    Args:
        weights: by part, path and lora_A or lora_B.
        trained: what the training kept beside them.
        facts: what the file says besides.
    """
    options = TrainingOptions.model_validate(trained["training"])
    tensors = keyed(weights, options, two_encoders=trained["pipeline"] != "StableDiffusionPipeline")
    bare = tensor_bytes(tensors, {})
    begin = 8 + int.from_bytes(bare[:8], "little")
    told = metadata(trained, options, facts)
    told["sshs_model_hash"] = hashlib.sha256(bare[begin:]).hexdigest()
    told["sshs_legacy_hash"] = hashlib.sha256(bare[0x100000:0x110000]).hexdigest()[:8]
    told["modelspec.hash_sha256"] = f"0x{told['sshs_model_hash']}"
    return tensor_bytes(tensors, told)


def keyed(
    weights: "Mapping[str, torch.Tensor]", options: TrainingOptions, *, two_encoders: bool
) -> "dict[str, torch.Tensor]":
    """Tensors by the names that readers look for."""
    import torch

    found: dict[str, torch.Tensor] = {}
    alpha = torch.tensor(float(options.network_alpha))
    transformer = any(name.startswith("transformer.") for name in weights)
    scale = options.network_alpha / options.network_dim
    for name, weight in weights.items():
        layer, _, kind = name.rpartition(".")
        if transformer:  # readers take an alpha beside these names in different ways
            tensor = weight * scale if kind == "lora_B" else weight
            found[f"{layer}.{kind}.weight"] = tensor.contiguous()
            continue
        begin = kohya_layer(layer, two_encoders=two_encoders)
        found[f"{begin}.{_ENDS[kind]}"] = weight.contiguous()
        found[f"{begin}.alpha"] = alpha
    return found


def kohya_layer(layer: str, *, two_encoders: bool) -> str:
    """The name with underscores of a layer."""
    part, _, path = layer.partition(".")
    plain = path.replace(".", "_")
    if part == "unet":
        return f"lora_unet_{plain}"
    # transformers has dropped this step of the path, readers still want it
    plain = plain if plain.startswith("text_model_") else f"text_model_{plain}"
    start = {
        "text_encoder": "lora_te1" if two_encoders else "lora_te",
        "text_encoder_2": "lora_te2",
    }
    return f"{start[part]}_{plain}"


def metadata(
    trained: Mapping[str, Any], options: TrainingOptions, facts: ExportFacts
) -> dict[str, str]:
    """All that the file says about itself, apart from its own digests."""
    dataset = DatasetOptions.model_validate(trained["dataset"])
    entries = cast("list[dict[str, Any]]", trained["entries"])
    own = [each for each in entries if not each["prior"]]
    prior = [each for each in entries if each["prior"]]
    architecture, version = _ARCHITECTURES[trained["pipeline"]]
    side = str(dataset.resolution or trained["native"])
    repeats = own[0]["repeats"] if own else 1
    folder = f"{repeats}_{facts.trigger or facts.name}"
    sizes = Counter(tuple(each["size"]) for each in own)
    tags = Counter(
        tag.strip() for each in own for tag in str(each["caption"]).split(",") if tag.strip()
    )
    taken = sum(each["repeats"] for each in own)
    batches = trained["batches_per_epoch"]
    epochs = -(-options.max_train_steps * options.gradient_accumulation_steps // batches)
    known = {
        "ss_output_name": facts.name,
        "ss_learning_rate": options.learning_rate,
        "ss_unet_lr": options.learning_rate,
        "ss_text_encoder_lr": options.text_encoder_lr,
        "ss_num_train_images": taken,
        "ss_num_reg_images": len(prior),
        "ss_num_batches_per_epoch": batches,
        "ss_num_epochs": epochs,
        "ss_epoch": epochs,
        "ss_steps": options.max_train_steps,
        "ss_max_train_steps": options.max_train_steps,
        "ss_gradient_checkpointing": options.gradient_checkpointing,
        "ss_gradient_accumulation_steps": options.gradient_accumulation_steps,
        "ss_lr_warmup_steps": options.lr_warmup_steps,
        "ss_lr_scheduler": options.lr_scheduler,
        "ss_network_module": "networks.lora",
        "ss_network_dim": options.network_dim,
        "ss_network_alpha": options.network_alpha,
        "ss_network_dropout": options.network_dropout or None,
        "ss_network_args": _network_args(options),
        "ss_mixed_precision": options.mixed_precision,
        "ss_full_fp16": False,
        "ss_v2": False,
        "ss_base_model_version": version,
        "ss_clip_skip": None,
        "ss_max_token_length": None,
        "ss_cache_latents": True,
        "ss_seed": trained["seed"],
        "ss_lowram": False,
        "ss_noise_offset": options.noise_offset or None,
        "ss_optimizer": options.optimizer,
        "ss_max_grad_norm": options.max_grad_norm,
        "ss_caption_dropout_rate": options.caption_dropout_rate,
        "ss_prior_loss_weight": options.prior_loss_weight,
        "ss_min_snr_gamma": options.min_snr_gamma,
        "ss_scale_weight_norms": options.scale_weight_norms,
        "ss_loss_type": options.loss_type,
        "ss_training_comment": facts.comment or None,
        "ss_sd_model_name": trained["model"],
        "ss_new_sd_model_hash": trained["model_sha256"],
        "ss_sd_model_hash": trained["model_sha256"][:8],
        "ss_batch_size_per_device": options.train_batch_size,
        "ss_total_batch_size": options.train_batch_size * options.gradient_accumulation_steps,
        "ss_resolution": f"({side}, {side})",
        "ss_shuffle_caption": options.shuffle_caption,
        "ss_keep_tokens": options.keep_tokens,
        "ss_flip_aug": dataset.flip_aug,
        "ss_enable_bucket": dataset.enable_bucket,
        "ss_bucket_no_upscale": dataset.bucket_no_upscale,
        "ss_min_bucket_reso": dataset.min_bucket_reso,
        "ss_max_bucket_reso": dataset.max_bucket_reso,
        "ss_dataset_dirs": {folder: {"n_repeats": repeats, "img_count": len(own)}},
        "ss_reg_dataset_dirs": (
            {"1_class": {"n_repeats": 1, "img_count": len(prior)}} if prior else {}
        ),
        "ss_tag_frequency": {folder: dict(sorted(tags.items()))},
        "ss_bucket_info": {
            "buckets": {
                str(at): {"resolution": list(size), "count": count}
                for at, (size, count) in enumerate(sorted(sizes.items()))
            }
        },
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": facts.name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.description": facts.comment or None,
        "modelspec.license": facts.licence,
        "modelspec.trigger_phrase": facts.trigger or None,
        "modelspec.prediction_type": (
            {"epsilon": "epsilon", "v_prediction": "v"}.get(str(trained["predicts"]))
        ),
    }
    left_out = ("modelspec.",)
    return {
        name: _text(value)
        for name, value in known.items()
        if value is not None or not name.startswith(left_out)
    }


def _network_args(options: TrainingOptions) -> dict[str, object]:
    """As kohya's scripts take them for convolutions."""
    if options.network_targets == "attention":
        return {}
    return {"conv_dim": str(options.network_dim), "conv_alpha": str(options.network_alpha)}


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
