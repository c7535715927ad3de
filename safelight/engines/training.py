"""What a training is asked for, and how it tells of itself while it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from safelight.engines.interface import Engine, Request
from safelight.params import Params
from safelight.pixels import Pixels


class DatasetOptions(Params):
    """How pictures and captions become what a network is trained on."""

    resolution: int | None = Field(default=None, ge=16, le=4096)
    """Side of the square whose area a picture gets, px; None is that which the model was trained
    at."""
    enable_bucket: bool = True
    """Keep the proportions of each picture, as far as its bucket has them; else squares are cut out
    of the middle."""
    min_bucket_reso: int | None = Field(default=None, ge=8, le=4096)
    """Shortest side of a bucket, px; None is half of the resolution."""
    max_bucket_reso: int | None = Field(default=None, ge=16, le=8192)
    """Longest side of a bucket, px; None is twice the resolution."""
    bucket_reso_steps: int = Field(default=64, ge=8, le=512)
    """Sides of buckets are multiples of this, px."""
    bucket_no_upscale: bool = False
    """Pictures smaller than their bucket get a smaller one instead of being enlarged."""
    flip_aug: bool = False
    """Take each picture mirrored half of the time. Not for what looks different then."""
    class_prompts: tuple[str, ...] = Field(default=(), max_length=1000)
    """Prior preservation: what the model is to go on drawing as it does; it draws the pictures of
    these prompts itself before the training."""
    class_images: int = Field(default=0, ge=0, le=10000)
    """How many such pictures; 0 is one for each of the prompts."""

    @model_validator(mode="after")
    def _buckets_are_possible(self) -> Self:
        bounds = {
            name: value
            for name in ("min_bucket_reso", "resolution", "max_bucket_reso")
            if (value := getattr(self, name)) is not None
        }
        if self.enable_bucket and sorted(bounds.values()) != [*bounds.values()]:
            said = ", ".join(f"{name} {value}" for name, value in bounds.items())
            raise ValueError(f"expected these to rise: {said}")
        limits = [f"{n} {v}" for n, v in bounds.items() if n != "resolution"]
        if limits and not self.enable_bucket:
            raise ValueError(f"{' and '.join(limits)} are of buckets, and enable_bucket is false")
        if self.class_images and not self.class_prompts:
            raise ValueError(f"class_images is {self.class_images}, and there are no class_prompts")
        return self


class TrainingOptions(Params):
    """How a LoRA is trained."""

    max_train_steps: int = Field(default=2000, ge=1, le=1_000_000)
    """Steps of the optimizer."""
    train_batch_size: int = Field(default=1, ge=1, le=256)
    """Pictures at once; fewer, with as many passes more, where memory runs out."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=256)
    """Batches that make up one step."""
    gradient_checkpointing: bool = False
    """Less memory, a third more time."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Format that the frozen network computes in; bf16 needs CUDA."""
    network_dim: int = Field(default=16, ge=1, le=1024)
    """Rank of the LoRA."""
    network_alpha: float = Field(default=16.0, gt=0, le=4096)
    """Its strength is alpha divided by the rank."""
    network_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of what goes into the LoRA that is left out by chance."""
    network_targets: Literal["attention", "all"] = "attention"
    """Layers of the network that change: those of attention and beside it, or convolutions too."""
    network_weights: str | None = Field(default=None, min_length=1, max_length=200)
    """Name of a LoRA to begin with; None begins with nothing."""
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    """Of the network. Prodigy finds its own: 1 is meant for it."""
    text_encoder_lr: float | None = Field(default=None, gt=0, le=10)
    """Of the text encoders; None leaves them as they are."""
    optimizer: Literal["AdamW", "AdamW8bit", "Prodigy"] = "AdamW"
    """AdamW8bit needs CUDA and bitsandbytes, Prodigy the package prodigyopt."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """How fast weights shrink that nothing holds up."""
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts"] = "constant"
    """How the learning rate falls."""
    lr_warmup_steps: int = Field(default=0, ge=0, le=100_000)
    """Steps in which it rises from nothing."""
    lr_scheduler_num_cycles: int = Field(default=1, ge=1, le=1000)
    """Restarts of cosine_with_restarts."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1000)
    """Longer gradients are made this long; 0 leaves all as they are."""
    min_snr_gamma: float | None = Field(default=None, gt=0, le=100)
    """Weigh noise levels by min(SNR, gamma); 5 is usual. Hang et al. 2023, arXiv:2303.09556."""
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    """How much whole channels of the noise are moved, for dark and light pictures."""
    loss_type: Literal["l2", "huber"] = "l2"
    """huber minds single wrong pictures less."""
    huber_c: float = Field(default=0.1, gt=0, le=100)
    """Error from which huber counts lengths instead of squares."""
    prior_loss_weight: float = Field(default=1.0, gt=0, le=100)
    """How much pictures of class_prompts count."""
    shuffle_caption: bool = False
    """The parts of a caption between commas in another order each time."""
    keep_tokens: int = Field(default=0, ge=0, le=100)
    """First parts that stay where they are."""
    caption_dropout_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of times that a picture is taken without its caption."""
    cache_text_encoder_outputs: bool | None = None
    """Whether captions are encoded once, before the training. None: where they stay the same."""
    scale_weight_norms: float | None = Field(default=None, gt=0, le=1000)
    """Longest change of a layer's weights; None is any."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Take the moving average of the weights, which keeps this share of itself each step; 0.99 is
    usual. None: take the last weights."""
    save_every: int = Field(default=250, ge=1, le=1_000_000)
    """Steps between checkpoints, from which an interrupted training goes on."""
    keep_last: int = Field(default=4, ge=1, le=100)
    """Checkpoints that are kept."""
    sample_every: int = Field(default=250, ge=0, le=1_000_000)
    """Steps between sample pictures, beside those before the first and after the last step; 0 draws
    none."""
    sample_prompts: tuple[str, ...] = Field(default=(), max_length=16)
    """What they show; empty draws the first caption."""
    sample_seed: int = Field(default=42, ge=0, lt=2**63)
    """Of all of them, so that they differ by the training alone."""
    walk_seed: bool = False
    """Each prompt takes the next seed."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        changing = [
            f"{name} {getattr(self, name):g}" if name == "text_encoder_lr" else name
            for name in ("text_encoder_lr", "shuffle_caption")
            if getattr(self, name)
        ]
        if self.cache_text_encoder_outputs and changing:
            raise ValueError(
                f"cache_text_encoder_outputs is true, and with {' and '.join(changing)} the "
                "encodings change; leave one of them out"
            )
        if self.keep_tokens and not self.shuffle_caption:
            raise ValueError(
                f"keep_tokens is {self.keep_tokens}, and shuffle_caption is false: all parts stay "
                "where they are"
            )
        if self.lr_scheduler_num_cycles > 1 and self.lr_scheduler != "cosine_with_restarts":
            raise ValueError(
                f"lr_scheduler_num_cycles is {self.lr_scheduler_num_cycles}, and lr_scheduler "
                f"{self.lr_scheduler} has no restarts"
            )
        if self.lr_warmup_steps >= self.max_train_steps:
            raise ValueError(
                f"lr_warmup_steps is {self.lr_warmup_steps}, of max_train_steps "
                f"{self.max_train_steps}: the learning rate would never arrive"
            )
        if "huber_c" in self.model_fields_set and self.loss_type != "huber":
            raise ValueError(f"huber_c is {self.huber_c:g}, and loss_type is {self.loss_type}")
        return self

    @property
    def caches_text(self) -> bool:
        """Whether captions are encoded once."""
        if self.cache_text_encoder_outputs is not None:
            return self.cache_text_encoder_outputs
        return self.text_encoder_lr is None and not self.shuffle_caption


@dataclass(frozen=True)
class Example:
    """One picture of a dataset."""

    pixels: Pixels
    """(H, W, 3) uint8 sRGB."""
    caption: str
    """What it shows."""
    repeats: int = 1
    """How often it is taken an epoch."""


@dataclass(frozen=True)
class Point:
    """How far a training is."""

    step: int
    """Finished steps."""
    steps: int
    """Of all."""
    loss: float
    """Of the last step."""
    seconds_left: float | None
    """By the pace of this process; None at the first step."""


class Course(Protocol):
    """Where a training keeps its checkpoints, and whom it tells of itself."""

    def checkpoints(self) -> Sequence[str]:
        """Names of those that are kept, the latest first."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of one; None where they are not what was written."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Keep one; it is there whole or not at all."""
        ...

    def drop(self, name: str) -> None:
        """Forget one."""
        ...

    def told(self, point: Point, losses: Sequence[float]) -> None:
        """A step is finished."""
        ...

    def sampled(self, step: int, prompts: Sequence[str], pictures: Sequence[Pixels]) -> None:
        """Pictures were drawn by what is learnt so far."""
        ...


@dataclass(frozen=True)
class ExportFacts:
    """What a LoRA file says about itself beside how it was trained."""

    name: str
    """Of the LoRA."""
    trigger: str
    """The word for what it has learnt."""
    comment: str
    """For people."""
    licence: str | None
    """Of the model that it changes."""


@runtime_checkable
class Trains(Engine, Protocol):
    """Learns a subject or a style from pictures."""

    def encode_dataset(
        self, request: "TrainRequest", examples: Sequence[Example], target: Path
    ) -> None:
        """Write a file with all that a training reads of pictures and captions."""
        ...

    def train(self, request: "TrainRequest", dataset: Path, course: Course, target: Path) -> None:
        """Write a file with what was learnt."""
        ...

    def draw_samples(
        self, request: "TrainRequest", trained: Path, prompts: Sequence[str]
    ) -> list[Pixels]:
        """A picture of each prompt, by what was learnt."""
        ...

    def export_lora(self, trained: Path, facts: ExportFacts, target: Path) -> None:
        """Write what was learnt as a LoRA file that other programs read too."""
        ...


@dataclass(frozen=True)
class TrainRequest(Request):
    """A LoRA for a model."""

    capability: ClassVar[type] = Trains
    model: str | None = None
    """Its name; None is the engine's own choice."""
    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    """How pictures are prepared."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """How they are learnt."""
    seed: int = 0
    """Of all that is left to chance."""
