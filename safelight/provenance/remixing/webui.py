"""The `parameters` text of AUTOMATIC1111 and of the tools that write the same."""

from safelight.provenance.parameters_text import SCHEDULES, parse_parameters
from safelight.provenance.remixing.understood import Reading, Understood

_NUMBERS = {"steps": "Steps", "seed": "Seed", "guidance_scale": "CFG scale"}
_TAKEN = {*_NUMBERS.values(), "Size", "Model", "VAE", "Sampler", "Schedule type"}
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
    if "Size" in found.fields and "width" not in reading.parameters:
        reading.leave("Size", found.fields["Size"], "no size")
    for name, value in found.fields.items():
        if name not in _TAKEN:
            reading.leave(name, value, _reason(name))
    return reading.understood()


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
