"""Texts that go with the model: model card, notice and licence."""

import json
from pathlib import Path
from typing import Any

from training.starter.settings import CHOSEN
from training.starter.subjects import SUBJECTS

HERE = Path(__file__).parent
REPORT = HERE / "report.json"
"""What the last evaluation found."""
LICENCE = "Apache-2.0"
"""Of the weights; the pictures they were trained on are drawn with a font under OFL-1.1."""
_TITLE = "# Starter: a text-to-image model that comes with the checkout"
_LICENCE_HEAD = """\
The weights, the tokenizer and the settings in this folder: Apache License, Version 2.0, as the
file LICENSE at the root of the repository has it.

They were trained on pictures drawn with the font Noto Color Emoji. The font is no part of this
repository; its licence follows.

"""


def licence_text() -> str:
    """Word the LICENSE file: ours in short, the font's in full."""
    return _LICENCE_HEAD + (HERE / "OFL.txt").read_text(encoding="utf-8")


def notice() -> str:
    """Word the NOTICE file."""
    return (
        "Safelight starter model\n"
        "Copyright 2026 The Safelight authors\n\n"
        "Weights: trained from nothing by `make starter`; Apache-2.0.\n"
        "Training pictures: Noto Color Emoji, Copyright 2013-2017 Google Inc. and Arjen Nienhuis,\n"
        "SIL Open Font License 1.1 (see LICENSE), https://github.com/googlefonts/noto-emoji;\n"
        "Debian's package fonts-noto-color-emoji 2.042.\n"
    )


def model_card(facts: dict[str, Any]) -> str:
    """Word README.md.

    Args:
        facts: what the file of facts holds.
    """
    sections = [_TITLE, facts["description"], _use(facts), _recipe(facts), _figures(), _limits()]
    return "\n\n".join([*sections, _subjects(), _licence()]) + "\n"


def _use(facts: dict[str, Any]) -> str:
    steps, guidance = facts["recommended_steps"], facts["recommended_guidance_scale"]
    side = facts["native_width"]
    return f"""## Use

Every preset draws with it as long as the models folder holds no other model. By itself:

```python
import torch
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("weights/starter")
seed = torch.Generator().manual_seed(0)
picture = pipeline(
    "a photo of a cat",
    width={side},
    height={side},
    num_inference_steps={steps},
    guidance_scale={guidance},
    generator=seed,
).images[0]
```

Native size {side} x {side} px, {steps} steps, guidance {guidance}. Prompts are English and are cut
off after 30 words; words it does not know fall apart into letters and are ignored."""


def _recipe(facts: dict[str, Any]) -> str:
    sizes = {name: f"{count / 1e6:.1f} M" for name, count in facts["parameters"].items()}
    history = facts["training"]
    lines = [
        "## Recipe",
        "",
        f"`make starter` draws the pictures, trains, tunes, exports and evaluates, with fixed "
        f"seeds; a run that was interrupted continues. {len(SUBJECTS)} subjects with "
        f"{sum(len(subject.names) for subject in SUBJECTS)} names, each drawn in 8 sizes and "
        "places on white; names are put into some 50 sentences, a third of them with words strewn "
        "around, so that the model learns what to ignore.",
        "",
        "| part | parameters | steps | minutes on one core |",
        "|---|---|---|---|",
        f"| AutoencoderKL, 64 px to 16 x 16 x 4 | {sizes['autoencoder']} | "
        f"{history.get('autoencoder_steps', 0):,} | {history.get('autoencoder_minutes', 0)} |",
        f"| CLIPTextModel, 2 layers | {sizes['text_encoder']} | "
        f"{history.get('text_steps', 0):,} | {history.get('text_minutes', 0)} |",
        f"| UNet2DConditionModel, v-prediction | {sizes['denoiser']} | "
        f"{history.get('denoiser_steps', 0):,} | {history.get('denoiser_minutes', 0)} |",
        "",
        "The text encoder is trained first and alone: its states at the end of a prompt become a "
        "random code of the subject, one direction for each, so no two subjects look alike to the "
        "denoiser whatever their names share. The denoiser reads them by cross attention and in "
        "the scale and shift of every residual block (`addition_embed_type: text`).",
        "",
        "The schedule ends in pure noise (zero terminal SNR) and takes trailing steps, so few "
        "suffice (Lin et al. 2023, arXiv:2305.08891). Weights are the moving average of training, "
        "in float16.",
    ]
    return "\n".join(lines)


def _figures() -> str:
    lines = ["## Figures", ""]
    if REPORT.exists():
        report = json.loads(REPORT.read_text(encoding="utf-8"))
        lines += [
            f"Of {report['asked']} requests in sentences that it was not trained on, seed "
            f"{report['seed']}, {report['right']} gave the subject asked for. A picture counts as "
            "the subject whose reference is nearest in mean colours (CIELAB, 8 x 8 cells) and "
            "histograms of oriented gradients, a measure that no part of the training uses. One "
            f"picture takes {report['seconds_a_picture']:.2f} s on {report['threads']} CPU "
            f"thread(s), loading {report['load_seconds']:.2f} s.",
        ]
    else:
        lines.append("Not evaluated yet: `python -m training.starter evaluate`.")
    if CHOSEN.exists():
        tuning = json.loads(CHOSEN.read_text(encoding="utf-8"))
        lines += [
            "",
            f"Steps and guidance were chosen with {tuning['asked']} other requests and seed "
            f"{tuning['seed']} (right, and mean distance to the reference asked for):",
            "",
            "| steps | guidance | right | distance |",
            "|---|---|---|---|",
            *(
                f"| {row['steps']} | {row['guidance_scale']} | {row['right']} | "
                f"{row['distance']:.3f} |"
                for row in tuning["tried"]
            ),
        ]
    return "\n".join(lines)


def _limits() -> str:
    return """## Limits

One subject on white. It does not count, combine, place or restyle, and knows no people and no
text. It learned one picture of each subject by heart: seeds change size and place, little else."""


def _subjects() -> str:
    names = ", ".join(subject.name for subject in SUBJECTS)
    return f"## Subjects\n\n{names}."


def _licence() -> str:
    return """## Data and licence

Training pictures: drawn with Noto Color Emoji (Debian's fonts-noto-color-emoji 2.042), SIL Open
Font License 1.1. Weights: Apache-2.0. See NOTICE and LICENSE."""
