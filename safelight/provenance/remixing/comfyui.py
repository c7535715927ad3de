"""The graph that ComfyUI writes into its pictures: read from what was saved back to its sampler."""

from collections.abc import Iterator
from typing import Any

from safelight.prompts.lora_tags import LoraTag
from safelight.provenance.parameters_text import MOST_CLIP_SKIP
from safelight.provenance.remixing.understood import Reading, Understood, mapping

_SAMPLING = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
_SAMPLERS = {
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "euler_ancestral": "euler_a",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
}
_PLAIN = ("normal", "simple")
_SILENT = (
    "VAEDecode",
    "SaveImage",
    "PreviewImage",
    "Note",
    "MarkdownNote",
    "KSamplerSelect",
    "RandomNoise",
    "BasicScheduler",
)
"""Nodes that set nothing beyond what is read by itself."""
MOST_NODES = 10_000


def understand_comfyui(graph: dict[str, Any]) -> Understood:
    """Read a graph in the form of the API, which is what the text `prompt` of its PNGs holds.

    Args:
        graph: name of a node to its class and inputs.
    """
    return _Graph(graph).understood()


class _Graph:
    def __init__(self, graph: dict[str, Any]) -> None:
        self.nodes = {str(name): mapping(node) for name, node in list(graph.items())[:MOST_NODES]}
        self.reading = Reading("ComfyUI")
        self._read: set[str] = set()
        self._own_vae = False
        """Whether the model's file brings one."""

    def understood(self) -> Understood:
        samplers = [name for name in self.nodes if self._class(name) in _SAMPLING]
        first = next((name for name in samplers if self._begins(name)), None)
        chosen = first or next(iter(samplers), None)
        if chosen is not None:
            self._take_sampling(chosen)
        for name in self.nodes:
            if name in self._read or self._class(name) in _SILENT:
                continue
            why = "another pass, which is not repeated" if name in samplers else "it takes no part"
            self.reading.leave(f"node {name}", self._class(name), why)
        if len(self.nodes) == MOST_NODES:
            self.reading.leave("nodes", f"beyond {MOST_NODES}", "too many to read")
        return self.reading.understood()

    def _class(self, name: str) -> str:
        return str(self.nodes[name].get("class_type", ""))

    def _inputs(self, name: str) -> Any:  # noqa: ANN401  (a stranger's JSON)
        return mapping(self.nodes[name].get("inputs"))

    def _linked(self, name: str, *inputs: str) -> str | None:
        """The node that the first of these inputs that is one leads to."""
        for each in inputs:
            link = self._inputs(name).get(each)
            if isinstance(link, list) and link and str(link[0]) in self.nodes:
                return str(link[0])
        return None

    def _along(self, start: str | None, *inputs: str) -> Iterator[str]:
        """Nodes from one on, each through the first of these inputs."""
        seen: set[str] = set()
        while start is not None and start not in seen:
            seen.add(start)
            yield start
            start = self._linked(start, *inputs)

    def _value(self, name: str, field: str) -> object:
        """A value, also where another node holds it."""
        for _ in range(8):
            value = self._inputs(name).get(field)
            if not isinstance(value, list):
                return value
            linked = self._linked(name, field)
            if linked is None:
                return None
            self._read.add(linked)
            held = ("value", "text", "string", "seed", "int", "float", "noise_seed")
            name, field = linked, next((h for h in held if h in self._inputs(linked)), "value")
        return None

    def _begins(self, sampler: str) -> bool:
        """Whether it draws on nothing, not on what another one drew or on a picture."""
        around = list(self._along(self._linked(sampler, "latent_image"), "samples", "latent"))
        return bool(around) and self._class(around[-1]).startswith("Empty")

    def _take_sampling(self, sampler: str) -> None:
        self._read.add(sampler)
        reading = self.reading
        settings = self._settings(sampler)
        for ours in ("seed", "steps"):
            reading.take_number(ours, settings.get(ours))
        reading.take_number("guidance_scale", settings.get("cfg"), whole=False)
        self._take_sampler(settings)
        self._take_latent(sampler)
        if settings.get("denoise") not in (None, 1, 1.0):
            reading.leave("denoise", settings["denoise"], "only whole drawings are repeated")
        guider = self._linked(sampler, "guider") or sampler
        self._read.add(guider)
        for ours, theirs in (("prompt", "positive"), ("negative_prompt", "negative")):
            names = (theirs, "conditioning") if ours == "prompt" else (theirs,)
            self._take_text(ours, self._linked(guider, *names))
        self._take_model(self._linked(guider, "model"))
        self._take_vae(sampler)

    def _settings(self, sampler: str) -> dict[str, object]:
        """Of a sampler, or of the nodes that a custom one is put together from."""
        found = {name: self._value(sampler, name) for name in ("steps", "cfg", "denoise")}
        found["sampler"] = self._value(sampler, "sampler_name")
        found["schedule"] = self._value(sampler, "scheduler")
        found["seed"] = self._value(sampler, "seed")
        if found["seed"] is None:
            found["seed"] = self._value(sampler, "noise_seed")
        for part, wanted in (
            ("noise", {"seed": "noise_seed"}),
            ("sampler", {"sampler": "sampler_name"}),
            ("sigmas", {"steps": "steps", "schedule": "scheduler", "denoise": "denoise"}),
            ("guider", {"cfg": "cfg"}),
        ):
            linked = self._linked(sampler, part)
            if linked is not None:
                self._read.add(linked)
                found |= {ours: self._value(linked, theirs) for ours, theirs in wanted.items()}
        for name in ("start_at_step", "end_at_step"):
            value = self._value(sampler, name)
            if isinstance(value, int) and (value > 0 if name == "start_at_step" else value < 1000):
                self.reading.leave(name, value, "only whole drawings are repeated")
        return found

    def _take_sampler(self, settings: dict[str, object]) -> None:
        theirs, schedule = settings.get("sampler"), settings.get("schedule")
        if not isinstance(theirs, str):
            return
        ours = _SAMPLERS.get(theirs, theirs.removesuffix("_gpu"))
        if schedule not in _PLAIN and schedule is not None:
            ours += f"_{schedule}"
        self.reading.take_sampler(ours, f"{theirs} {schedule or ''}".strip())

    def _take_latent(self, sampler: str) -> None:
        for name in self._along(self._linked(sampler, "latent_image"), "samples", "latent"):
            self._read.add(name)
            if not self._class(name).startswith("Empty"):
                self.reading.leave(f"node {name}", self._class(name), "it draws over a picture")
                continue
            self.reading.take_number("width", self._value(name, "width"))
            self.reading.take_number("height", self._value(name, "height"))
            batch = self._value(name, "batch_size")
            if batch not in (None, 1):
                self.reading.take_number("num_images", batch)

    def _take_text(self, ours: str, start: str | None) -> None:
        further = ("conditioning", "positive", "conditioning_1", "conditioning_to")
        for name in self._along(start, *further):
            self._read.add(name)
            if self._class(name) == "ConditioningZeroOut":
                return
            if self._class(name) == "FluxGuidance":
                self._take_guidance(name)
                continue
            fields = ("text", "text_g", "t5xxl", "clip_l", "text_l", "prompt")
            texts = [self._value(name, field) for field in fields]
            said = [text for text in texts if isinstance(text, str) and text.strip()]
            if said:
                self._take_clip(name)
                self.reading.take_text(ours, said[0])
                for other in said[1:]:
                    if other != said[0]:
                        self.reading.leave(f"node {name}", other, "a second text of one prompt")
                return
            if "text" not in self._inputs(name):
                self.reading.leave(f"node {name}", self._class(name), "it takes no part")

    def _take_guidance(self, name: str) -> None:
        """What Flux was trained to read as its guidance: `guidance_scale` of such a model."""
        guidance, cfg = self._value(name, "guidance"), self.reading.parameters.get("guidance_scale")
        if cfg not in (None, 1.0, guidance):
            self.reading.leave("cfg", cfg, f"the guidance of {self._class(name)} is taken")
        self.reading.take_number("guidance_scale", guidance, whole=False)

    def _take_clip(self, name: str) -> None:
        """The layer at which CLIP reads a prompt, for all prompts of a picture."""
        for each in self._along(self._linked(name, "clip"), "clip"):
            if self._class(each) != "CLIPSetLastLayer":
                continue
            self._read.add(each)
            layer = self._value(each, "stop_at_clip_layer")
            if isinstance(layer, int) and -MOST_CLIP_SKIP <= layer <= -1:
                self.reading.parameters["clip_skip"] = -layer
            else:
                self.reading.leave("stop_at_clip_layer", layer, "no number of a layer")
            return

    def _take_vae(self, sampler: str) -> None:
        """A VAE that stands in for that of the model's file."""
        for name in self.nodes:
            loader = self._linked(name, "vae") if self._class(name) == "VAEDecode" else None
            named = self._inputs(loader).get("vae_name") if loader is not None else None
            if loader is None or not isinstance(named, str):
                continue
            drawn = self._along(self._linked(name, "samples"), "samples", "latent_image")
            if sampler not in drawn:
                continue
            self._read.add(loader)
            if self._own_vae:
                self.reading.take_vae(named)
            else:
                why = "a model without one takes it from beside its file; see vae"
                self.reading.leave("VAE", named, why)
            return

    def _take_model(self, start: str | None) -> None:
        loras: list[LoraTag] = []
        for name in self._along(start, "model"):
            self._read.add(name)
            inputs = self._inputs(name)
            if isinstance(inputs.get("lora_name"), str):
                strength = self._value(name, "strength_model")
                weight = float(strength) if isinstance(strength, int | float) else 1.0
                clip = self._value(name, "strength_clip")
                apart = float(clip) if isinstance(clip, int | float) and clip != weight else None
                loras.append(LoraTag(inputs["lora_name"], weight, apart))
                continue
            named = inputs.get("ckpt_name") or inputs.get("unet_name")
            if isinstance(named, str):
                self._own_vae = "ckpt_name" in inputs
                self.reading.take_model(named)
            else:
                self.reading.leave(f"node {name}", self._class(name), "it takes no part")
        self.reading.take_loras(loras[::-1])
