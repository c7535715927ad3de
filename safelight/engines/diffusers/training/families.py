"""What differs between families of models while they are trained: noise, captions, calls.

Stable Diffusion and XL predict noise, velocity or the picture on a schedule of alphas; SD 3.5 and
Flux predict the way from the picture to noise (rectified flow: Liu et al. 2022, arXiv:2209.03003;
Esser et al. 2024, arXiv:2403.03206).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from safelight.errors import ContractMismatchError

if TYPE_CHECKING:
    import torch

Text = dict[str, "torch.Tensor"]
"""Encoded captions, by what they are to the network; a row each."""


class Family(Protocol):
    """One way of training."""

    denoiser: str
    """Part of the pipeline that draws."""
    encoders: tuple[str, ...]
    """Parts that read captions and can be trained."""
    multiple: int
    """What sides of pictures have to be multiples of, px."""

    def encode_text(self, captions: Sequence[str]) -> Text:
        """Encode captions."""
        ...

    def loss(
        self,
        latents: "torch.Tensor",
        noise: "torch.Tensor",
        moments: "torch.Tensor",
        text: Text,
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]":
        """Call the network.

        Args:
            latents: (B, C, h, w).
            noise: standard normal, the same shape.
            moments: (B,) standard uniform or normal, see `moments_are_normal`.
            text: of B captions.

        Returns:
            What it said and what it should have said, of one shape, and the ratio of signal to
            noise, (B,), where there is a schedule.
        """
        ...

    @property
    def moments_are_normal(self) -> bool:
        """Whether `moments` are normal numbers, else uniform in [0, 1)."""
        ...


class _OfPipeline:
    """What all have: a pipeline."""

    denoiser = "unet"
    encoders: tuple[str, ...] = ("text_encoder",)
    moments_are_normal = False

    def __init__(self, pipeline: Any, scheduler: Any) -> None:  # noqa: ANN401
        self.pipeline = pipeline
        self.scheduler = scheduler

    @property
    def device(self) -> "torch.device":
        """Where it computes."""
        return next(getattr(self.pipeline, self.denoiser).parameters()).device

    @property
    def multiple(self) -> int:
        """The autoencoder's factor, times what the network halves."""
        factor = int(self.pipeline.vae_scale_factor)
        levels = len(getattr(self.pipeline, self.denoiser).config.get("down_block_types") or ())
        return max(8, factor * 2 ** max(levels - 1, 0))


class Diffusion(_OfPipeline):
    """Stable Diffusion 1.5, 2.1 and what is like them."""

    def encode_text(self, captions: Sequence[str]) -> Text:
        """See `Family.encode_text`."""
        encoded, _ = self.pipeline.encode_prompt(list(captions), self.device, 1, False)
        return {"states": encoded}

    def added(self, text: Text, latents: "torch.Tensor") -> Mapping[str, "torch.Tensor"] | None:
        """Further conditions of the network."""
        del text, latents
        return None

    def loss(
        self,
        latents: "torch.Tensor",
        noise: "torch.Tensor",
        moments: "torch.Tensor",
        text: Text,
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]":
        """See `Family.loss`."""
        config = self.scheduler.config
        alphas = self.scheduler.alphas_cumprod.to(latents.device)
        steps = (moments * int(config["num_train_timesteps"])).long()
        alpha = alphas[steps].to(latents.dtype)
        signal = alpha.sqrt()[:, None, None, None]
        share = (1 - alpha).sqrt()[:, None, None, None]
        noisy = signal * latents + share * noise
        said = self.pipeline.unet(
            noisy,
            steps,
            encoder_hidden_states=text["states"],
            added_cond_kwargs=self.added(text, latents),
            return_dict=False,
        )[0]
        wanted = {
            "epsilon": lambda: noise,
            "v_prediction": lambda: signal * noise - share * latents,
            "sample": lambda: latents,
        }[config["prediction_type"]]()
        return said, wanted, alpha / (1 - alpha)

    @property
    def predicts(self) -> str:
        """epsilon, v_prediction or sample."""
        return str(self.scheduler.config["prediction_type"])


class DiffusionXL(Diffusion):
    """Stable Diffusion XL."""

    encoders = ("text_encoder", "text_encoder_2")

    def encode_text(self, captions: Sequence[str]) -> Text:
        """See `Family.encode_text`."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            list(captions), device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def added(self, text: Text, latents: "torch.Tensor") -> Mapping[str, "torch.Tensor"] | None:
        """Sizes: each picture counts as made at the size it is trained at, nothing cut off."""
        factor = int(self.pipeline.vae_scale_factor)
        high, wide = (side * factor for side in latents.shape[2:])
        sizes = latents.new_tensor([[high, wide, 0, 0, high, wide]] * len(latents))
        return {"text_embeds": text["pooled"], "time_ids": sizes}


class Flow(_OfPipeline):
    """Stable Diffusion 3 and 3.5."""

    denoiser = "transformer"
    encoders = ("text_encoder", "text_encoder_2")
    moments_are_normal = True

    @property
    def multiple(self) -> int:
        """The autoencoder's factor, times the side of the network's patches."""
        return int(self.pipeline.vae_scale_factor) * 2

    def encode_text(self, captions: Sequence[str]) -> Text:
        """See `Family.encode_text`."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            list(captions), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def loss(
        self,
        latents: "torch.Tensor",
        noise: "torch.Tensor",
        moments: "torch.Tensor",
        text: Text,
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]":
        """See `Family.loss`; moments are logit-normal, moved as the schedule is."""
        shift = float(self.scheduler.config.get("shift") or 1.0)
        sigma = moments.sigmoid()
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        wide = sigma[:, None, None, None]
        noisy = (1 - wide) * latents + wide * noise
        return self.said(noisy, sigma, text), noise - latents, None

    def said(self, noisy: "torch.Tensor", sigma: "torch.Tensor", text: Text) -> "torch.Tensor":
        """The network's answer."""
        steps = float(self.scheduler.config["num_train_timesteps"])
        return self.pipeline.transformer(
            hidden_states=noisy,
            timestep=sigma * steps,
            encoder_hidden_states=text["states"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]


class Flux(Flow):
    """Flux."""

    encoders = ("text_encoder",)

    def encode_text(self, captions: Sequence[str]) -> Text:
        """See `Family.encode_text`."""
        states, pooled, _ = self.pipeline.encode_prompt(list(captions), None, device=self.device)
        return {"states": states, "pooled": pooled}

    def said(self, noisy: "torch.Tensor", sigma: "torch.Tensor", text: Text) -> "torch.Tensor":
        """The network's answer; latents go in as patches of 2 x 2."""
        import torch

        count, channels, high, wide = noisy.shape
        network = self.pipeline.transformer
        ids = self.pipeline._prepare_latent_image_ids(
            count, high // 2, wide // 2, noisy.device, noisy.dtype
        )
        words = torch.zeros(text["states"].shape[1], 3, device=noisy.device, dtype=noisy.dtype)
        guided = network.config.guidance_embeds
        said = network(
            hidden_states=self.pipeline._pack_latents(noisy, count, channels, high, wide),
            timestep=sigma,
            guidance=torch.ones(count, device=noisy.device) if guided else None,
            pooled_projections=text["pooled"],
            encoder_hidden_states=text["states"],
            txt_ids=words,
            img_ids=ids,
            return_dict=False,
        )[0]
        factor = int(self.pipeline.vae_scale_factor)
        return self.pipeline._unpack_latents(said, high * factor, wide * factor, factor)


FAMILIES: dict[str, type[Diffusion] | type[Flow]] = {
    "StableDiffusionPipeline": Diffusion,
    "StableDiffusionXLPipeline": DiffusionXL,
    "StableDiffusion3Pipeline": Flow,
    "FluxPipeline": Flux,
}
"""By the class of the pipeline."""


def family_of(pipeline: Any, scheduler: Any, name: str) -> Diffusion | Flow:  # noqa: ANN401
    """The way to train a model.

    Raises:
        ContractMismatchError: there is none for its kind.
    """
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise ContractMismatchError(
            f"model {name} is a {kind}, for which there is no training",
            "choose a Stable Diffusion 1.5, XL, 3.5 or Flux model",
        )
    return FAMILIES[kind](pipeline, scheduler)
