"""The metadata of InvokeAI, version 3 and later."""

from typing import Any

from safelight.prompts.lora_tags import LoraTag
from safelight.provenance.parameters_text import MOST_CLIP_SKIP
from safelight.provenance.remixing.understood import Reading, Understood, mapping

_NUMBERS = {"seed": "seed", "steps": "steps", "width": "width", "height": "height"}
_TELLS = {"app_version", "generation_mode", "rand_device", "created_by", "metadata_version"}
_SAMPLERS = {"kdpm_2": "dpm2", "kdpm_2_a": "dpm2_a"}
_OWN_WEIGHTS = ("++", "--", ")+", ")-")


def understand_invokeai(found: dict[str, Any]) -> Understood:
    """Read the object.

    Args:
        found: the JSON of `invokeai_metadata`.
    """
    reading = Reading("InvokeAI")
    reading.take_text("prompt", found.get("positive_prompt"))
    reading.take_text("negative_prompt", found.get("negative_prompt"))
    for ours, theirs in _NUMBERS.items():
        reading.take_number(ours, found.get(theirs))
    reading.take_number("guidance_scale", found.get("cfg_scale"), whole=False)
    reading.take_model(_name(found.get("model")))
    reading.take_vae(_name(found.get("vae")))
    skipped = found.get("clip_skip")
    if isinstance(skipped, int) and 0 < skipped < MOST_CLIP_SKIP:
        reading.parameters["clip_skip"] = skipped + 1  # there 1 is the penultimate layer
    if isinstance(found.get("scheduler"), str):
        _take_sampler(reading, found["scheduler"])
    _take_loras(reading, found.get("loras"))
    known = {*_NUMBERS.values(), "positive_prompt", "negative_prompt", "cfg_scale", "model"}
    for name, value in found.items():
        taken = name in reading.parameters or name in known | {"scheduler", "loras"}
        if taken or value in (None, "", 0, [], {}):
            continue
        told = name in _TELLS
        why = "it tells of the file, and sets nothing" if told else "there is nothing like it here"
        reading.leave(name, _name(value) or value, why)
    for name in ("prompt", "negative_prompt"):
        text = str(reading.parameters.get(name, ""))
        if any(mark in text for mark in _OWN_WEIGHTS):
            reading.leave(name, text, "its weights with + and - are read as text here")
    return reading.understood()


def _take_sampler(reading: Reading, theirs: str) -> None:
    bare = theirs.removesuffix("_k")
    ours = _SAMPLERS.get(bare, bare) + ("_karras" if bare != theirs else "")
    reading.take_sampler(ours, theirs)


def _take_loras(reading: Reading, given: object) -> None:
    taken: list[LoraTag] = []
    for each in given if isinstance(given, list) else ():
        lora = mapping(each)
        name = _name(lora.get("model")) or _name(lora.get("lora"))
        weight = lora.get("weight", 0.75)
        if name and isinstance(weight, int | float):
            taken.append(LoraTag(name, float(weight)))
        else:
            reading.leave("LoRA", each, "it has no name or no weight")
    reading.take_loras(taken)


def _name(model: object) -> str:
    known = mapping(model)
    name = known.get("name") or known.get("model_name") or model
    return name if isinstance(name, str) else ""
