"""The `parameters` text of AUTOMATIC1111, which most tools of this field read and write."""

import json
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.installed import version
from safelight.prompts.lora_tags import lora_tags
from safelight.provenance.record import FileRecord

SAMPLERS = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PLMS",
    "unipc": "UniPC",
    "lcm": "LCM",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpm2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_2s": "DPM++ 2S",
    "deis": "DEIS",
}
"""Our names of schedulers to the names other tools show; unknown ones are written as they are."""
SCHEDULES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "beta": "Beta",
}
"""Endings of our names to the schedule type."""
_NEGATIVE = "Negative prompt:"
_FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_FEWEST_FIELDS = 3
"""With fewer, the last line belongs to the prompt."""
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class GenerationSettings(BaseModel):
    """What a `parameters` text says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    """What to draw; may have several lines."""
    negative_prompt: str = ""
    """What to avoid."""
    fields: dict[str, str]
    """Every named value of the last line, unquoted, in the order it was written."""

    def parameters(self) -> dict[str, JsonValue]:
        """The fields that `generate` knows, under its names; what it does not know is left out.

        Raises:
            ValueError: a number is not one.
        """
        found: dict[str, JsonValue] = {"prompt": self.prompt}
        try:
            text, tags = lora_tags(self.prompt)
        except ValueError:  # whoever draws by it says what is wrong
            text, tags = self.prompt, []
        if tags:
            found["prompt"] = text.strip()
            found["loras"] = [{**tag.as_parameters()} for tag in tags]
        if self.negative_prompt:
            found["negative_prompt"] = self.negative_prompt
        for name, theirs, kind in _NUMBERS:
            if theirs in self.fields:
                found[name] = kind(self.fields[theirs])
        size = _SIZE.fullmatch(self.fields.get("Size", ""))
        if size:
            found["width"], found["height"] = int(size[1]), int(size[2])
        if "Model" in self.fields:
            found["model"] = self.fields["Model"]
        skip = self.fields.get("Clip skip", "")
        if skip.isdecimal() and 1 < int(skip) <= MOST_CLIP_SKIP:
            found["clip_skip"] = int(skip)
        if self.fields.get("VAE", "None") not in _NO_VAE:
            found["vae"] = model_name(self.fields["VAE"])
        if "Sampler" in self.fields:
            found["scheduler"] = our_scheduler(
                self.fields["Sampler"], self.fields.get("Schedule type", "")
            )
        return found


MOST_CLIP_SKIP = 12
"""Layers that the text encoder of Stable Diffusion has."""
_NO_VAE = ("None", "Automatic")
"""What stands there when a model's own is used."""
_NUMBERS: tuple[tuple[str, str, type[int] | type[float]], ...] = (
    ("steps", "Steps", int),
    ("guidance_scale", "CFG scale", float),
    ("seed", "Seed", int),
    ("strength", "Denoising strength", float),
)


def parameters_text(record: FileRecord) -> str | None:
    """The text for a picture; None when no stage in its history drew from a prompt."""
    chain = [*record.history, record]
    drawn = [place for place, step in enumerate(chain) if _draws(step)]
    if not drawn:
        return None
    drawing, later = chain[drawn[-1]], chain[drawn[-1] + 1 :]
    fields = _fields(drawing, later)
    values = [f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None]
    lines = [_text(drawing, "prompt") + _lora_tags(drawing)]
    negative = _text(drawing, "negative_prompt")
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    return "\n".join([*lines, ", ".join(values)]).strip()


def _draws(step: FileRecord) -> bool:
    """Whether a stage drew whole pictures from a prompt, so that its settings are those to tell."""
    asked = "prompt" in step.parameters
    return asked and (step.origin == "creates" or "num_images" in step.parameters)


def parse_parameters(text: str) -> GenerationSettings:
    """Read a text that this module or another tool wrote; nothing in it is an error.

    A prompt line that itself starts with "Negative prompt:" cannot be told from the real one, and
    spaces at the ends of lines are lost: the format has no marks for them.
    """
    *lines, last = text.strip().split("\n")
    named = _FIELD.findall(last)
    if len(named) < _FEWEST_FIELDS:
        lines, named = [*lines, last], []
    stripped = [line.strip() for line in lines]
    start = next((i for i, line in enumerate(stripped) if line.startswith(_NEGATIVE)), len(lines))
    negative = [line.removeprefix(_NEGATIVE).strip() for line in stripped[start:]]
    return GenerationSettings(
        prompt="\n".join(stripped[:start]).strip(),
        negative_prompt="\n".join(negative).strip(),
        fields={name: _unquoted(value) for name, value in named},
    )


def is_sampler(name: str) -> bool:
    """Whether a name is one of ours, with or without noise levels of a kind that we name."""
    bare = next((name.removesuffix(f"_{s}") for s in SCHEDULES if name.endswith(f"_{s}")), name)
    return bare in SAMPLERS


def model_name(model: str) -> str:
    """The name of a file of weights without folder and ending."""
    name = re.split(r"[/\\]", model)[-1]
    return re.sub(r"\.(safetensors|ckpt|pth|pt)$", "", name)


def printable(text: str) -> str:
    """The text with what XML and PNG cannot hold shown as U+FFFD, and line ends as one LF."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def creator_tool() -> str:
    """Name and version that files carry."""
    return f"Safelight {version('safelight')}"


def _fields(drawing: FileRecord, later: list[FileRecord]) -> dict[str, JsonValue]:
    given = drawing.parameters
    sampler, schedule = _their_sampler(given.get("scheduler") or drawing.sampler)
    width, height = given.get("width"), given.get("height")
    refined = next((r.parameters for r in later if "refinement_level" in r.parameters), {})
    model, vae = given.get("model"), given.get("vae")
    return {
        "Steps": given.get("steps"),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": given.get("guidance_scale"),
        "Seed": given.get("seed"),
        "Size": f"{width}x{height}" if width and height else None,
        "Model hash": drawing.weights[0][:10] if drawing.weights else None,
        "Model": model_name(model) if isinstance(model, str) and model else None,
        "VAE": model_name(vae) if isinstance(vae, str) and vae else None,
        "Clip skip": given.get("clip_skip"),
        "Denoising strength": given.get("strength", refined.get("refinement_level")),
        "Mask blur": given.get("mask_blur"),
        "Hires upscale": refined.get("scale"),
        "Hires steps": refined.get("steps"),
        "Template": _template(drawing, "prompt"),
        "Negative Template": _template(drawing, "negative_prompt"),
        "Version": creator_tool(),
    }


def _template(drawing: FileRecord, name: str) -> str | None:
    """What was written for a prompt that held choices, under the name sd-dynamic-prompts has."""
    written = (each.template for each in drawing.unfolded if each.field.rpartition(".")[2] == name)
    return next(written, None)


def _lora_tags(drawing: FileRecord) -> str:
    """LoRAs as AUTOMATIC1111 has people write them into the prompt."""
    loras = drawing.parameters.get("loras")
    given = loras if isinstance(loras, list) else []
    return "".join(
        f" <lora:{model_name(printable(str(lora['name'])))}:{_weights(lora)}>"
        for lora in given
        if isinstance(lora, dict) and {"name", "weight"} <= lora.keys()
    )


def _weights(lora: Mapping[str, JsonValue]) -> str:
    """One weight, or that of the text encoders before the other."""
    apart = lora.get("text_weight")
    return f"{lora['weight']}" if apart is None else f"{apart}:{lora['weight']}"


def _text(record: FileRecord, name: str) -> str:
    value = record.parameters.get(name)
    return printable(value) if isinstance(value, str) else ""


def _their_sampler(scheduler: JsonValue) -> tuple[str | None, str | None]:
    if not isinstance(scheduler, str) or scheduler in ("", "auto", "default"):
        return None, None
    for ending, schedule in SCHEDULES.items():
        bare = scheduler.removesuffix(f"_{ending}")
        if bare != scheduler:
            return SAMPLERS.get(bare, bare), schedule
    return SAMPLERS.get(scheduler, scheduler), None


def our_scheduler(sampler: str, schedule: str = "") -> str:
    """Our name of a sampler that other tools show, with its schedule; others stay as they are."""
    for shown in SCHEDULES.values():  # tools before 2024 wrote both in one field
        if sampler.endswith(f" {shown}"):
            sampler, schedule = sampler.removesuffix(f" {shown}"), shown
    names = {shown: ours for ours, shown in reversed(SAMPLERS.items())}
    endings = {shown: ours for ours, shown in SCHEDULES.items()}
    ours = names.get(sampler, sampler)
    return f"{ours}_{endings[schedule]}" if schedule in endings else ours


def _quoted(value: JsonValue) -> str:
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if re.search("[,\n:]", text) else text


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, str) else value
