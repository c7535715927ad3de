"""The `parameters` text of AUTOMATIC1111 and of the tools that write the same."""

from collections.abc import Mapping

from safelight.provenance.parameters_text import SCHEDULES, parse_parameters
from safelight.provenance.remixing.understood import Hires, Reading, Understood

_NUMBERS = {"steps": "Steps", "seed": "Seed", "guidance_scale": "CFG scale"}
_DISTILLED = "Distilled CFG Scale"
"""What Forge calls the guidance that Flux reads as a number; its CFG scale is 1 then."""
_TAKEN = {*_NUMBERS.values(), "Size", "Model", "VAE", "Clip skip", "Sampler", "Schedule type"}
_TELLS = {"Version", "Model hash", "VAE hash", "Lora hashes", "TI hashes", "Hashes", "App"}
_TEMPLATES = {"Template", "Negative Template"}
_PLAIN = {"", "Uniform", "Normal"}
_AUTOMATIC = {
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a"), "_karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 3M SDE"), "_exponential"),
}
"""What the schedule "Automatic" is for a sampler; for all others the plain one.

Source: modules/sd_samplers_kdiffusion.py of AUTOMATIC1111's web UI, 1.9.
"""
_OF_HIRES = {"Hires upscale", "Hires upscaler", "Hires steps", "Denoising strength"}
MOST_SCALE, MOST_STEPS = 4, 150
"""Of the stages that repeat the second pass."""
_SECOND = {"Denoising strength", "Mask blur"}


def understand_webui(text: str) -> Understood:
    """Read the text.

    Args:
        text: as the file holds it.
    """
    found, reading = parse_parameters(text), Reading("AUTOMATIC1111")
    for name, theirs in _NUMBERS.items():
        reading.take_number(name, found.fields.get(theirs), whole=name != "guidance_scale")
    fields = {
        name: value
        for name, value in found.fields.items()
        if name not in _NUMBERS.values() and name not in _SECOND
    }
    rest = found.model_copy(update={"fields": fields}).parameters()
    sampler = rest.pop("scheduler", None)
    reading.parameters = {**rest, **reading.parameters}
    if sampler is not None:
        _take_sampler(reading, str(sampler), found.fields)
    taken = _take_distilled(reading, found.fields)
    if "Size" in found.fields and "width" not in reading.parameters:
        reading.leave("Size", found.fields["Size"], "no size")
    skip = found.fields.get("Clip skip")
    if skip not in (None, "1") and "clip_skip" not in reading.parameters:
        reading.leave("Clip skip", skip, "no number of a layer")
    reading.hires = _hires(found.fields)
    second = _OF_HIRES if reading.hires is not None else set[str]()
    for name, value in found.fields.items():
        if name not in _TAKEN | second | taken:
            reading.leave(name, value, _reason(name))
    return reading.understood()


def _take_distilled(reading: Reading, fields: Mapping[str, str]) -> set[str]:
    """The guidance of Flux, where the other one does nothing; which fields were read."""
    if _DISTILLED not in fields or reading.parameters.get("guidance_scale") not in (None, 1.0):
        return set()
    reading.take_number("guidance_scale", fields[_DISTILLED], whole=False)
    return {_DISTILLED}


def _hires(fields: Mapping[str, str]) -> Hires | None:
    """The second pass, where the text says all that it takes."""
    try:
        scale, strength = float(fields["Hires upscale"]), float(fields["Denoising strength"])
        steps = int(fields.get("Hires steps", "0"))
    except (KeyError, ValueError):
        return None
    if not (1 <= scale <= MOST_SCALE and 0 < strength <= 1 and 0 <= steps <= MOST_STEPS):
        return None
    upscaler = fields.get("Hires upscaler", "")
    return Hires(scale=scale, strength=strength, steps=steps or None, upscaler=upscaler)


def automatic(sampler: str) -> str:
    """The ending of our name for a sampler with the schedule "Automatic"."""
    return _AUTOMATIC.get(sampler, "")


def _take_sampler(reading: Reading, ours: str, fields: dict[str, str]) -> None:
    sampler, schedule = fields["Sampler"], fields.get("Schedule type", "")
    if schedule == "Automatic":
        ours += automatic(sampler)
    elif schedule not in _PLAIN and schedule not in SCHEDULES.values():
        reading.leave("Schedule type", schedule, "there is none like it here")
    reading.take_sampler(ours, f"{sampler} {schedule}".strip())


def _reason(name: str) -> str:
    if name in _TELLS or name.endswith(" hash"):
        return "it describes the files, and sets nothing"
    if name in _TEMPLATES:
        return "the words that were drawn for it are taken"
    if name in _SECOND:
        return "a pass over another picture, which is not repeated"
    if name.startswith("Hires"):
        return "a second, larger pass, which is not repeated; see upscale and refine"
    return "there is nothing like it here"
