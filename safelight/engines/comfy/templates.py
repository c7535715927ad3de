"""Workflows that stages are drawn by: a template for each way to draw, filled with a request."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from pydantic import JsonValue

from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph, Node
from safelight.engines.interface import DrawRequest, PromptRequest, RedrawRequest
from safelight.engines.object_info import choices_of, config_of
from safelight.errors import DependencyMissingError, MissingRequiredFieldError
from safelight.params import SEEDS

KARRAS = "_karras"
"""How names of samplers end whose noise levels are Karras's."""
USUAL = "euler"
SAVED = "safelight"
Link = list[JsonValue]


class _Graph:
    """Nodes that are added one by one."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, kind: str, title: str, **inputs: JsonValue) -> Callable[[int], Link]:
        """Add a node; what gives a link to one of its outputs."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = Node(name, kind, title, inputs)
        return lambda output: [name, output]


def refused(request: PromptRequest) -> DependencyMissingError | None:
    """Why no template draws this; None where one does."""
    beyond = {
        "IP-Adapter": request.ip_adapter is not None,
        "ControlNet": bool(request.controlnets),
        "textual inversions": bool(request.embeddings),
    }
    found = next((what for what, is_wanted in beyond.items() if is_wanted), None)
    if found is None:
        return None
    return DependencyMissingError(
        f"the templates for ComfyUI draw without {found}",
        "run a workflow of your own that has it, by the stage comfy",
    )


def drawn_by(server: Server, request: PromptRequest, picture: str = "") -> Graph:
    """The workflow that draws a request, with names as the server has them.

    Args:
        server: whose models are meant.
        request: what to draw.
        picture: name of the picture that is drawn over, in the server's folder of inputs.

    Raises:
        DependencyMissingError: the server has no such model, LoRA, VAE or sampler.
        MissingRequiredFieldError: there is no seed.
    """
    if request.seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    sampler, levels = _sampler(server, request.scheduler)
    graph = _Graph()
    loader = graph.add("CheckpointLoaderSimple", "Model", ckpt_name=checkpoint(server, request))
    model, clip, vae = loader(0), loader(1), loader(2)
    for use in request.loras:
        lora = graph.add(
            "LoraLoader",
            f"LoRA {use.name}",
            model=model,
            clip=clip,
            lora_name=_named(server, "LoraLoader", "lora_name", use.name, "lora"),
            strength_model=use.weight,
            strength_clip=use.weight if use.text_weight is None else use.text_weight,
        )
        model, clip = lora(0), lora(1)
    if request.clip_skip > 1:
        clip = graph.add(
            "CLIPSetLastLayer", "Clip skip", clip=clip, stop_at_clip_layer=-request.clip_skip
        )(0)
    if request.vae is not None:
        name = _named(server, "VAELoader", "vae_name", request.vae, "vae")
        vae = graph.add("VAELoader", "VAE", vae_name=name)(0)
    prompts = [
        graph.add("CLIPTextEncode", title, text=text, clip=clip)(0)
        for title, text in (("Prompt", request.prompt), ("Negative", request.negative_prompt))
    ]
    latent = _latent(graph, request, picture, vae)
    for number in range(request.num_images):
        noise = graph.add(
            "KSampler",
            "Sampler",
            seed=(request.seed + number) % SEEDS,
            steps=request.steps,
            cfg=request.guidance_scale,
            sampler_name=sampler,
            scheduler=levels,
            denoise=request.strength if isinstance(request, RedrawRequest) else 1.0,
            model=model,
            positive=prompts[0],
            negative=prompts[1],
            latent_image=latent,
        )
        pixels = graph.add("VAEDecode", "Decode", samples=noise(0), vae=vae)
        graph.add("SaveImage", "Save", images=pixels(0), filename_prefix=SAVED)
    return graph.nodes


def checkpoint(server: Server, request: PromptRequest) -> str:
    """The model of a request, as the server calls it; its first where the request names none.

    Raises:
        DependencyMissingError: it has none, or none of that name.
    """
    return _named(server, "CheckpointLoaderSimple", "ckpt_name", request.model, "checkpoint")


def _latent(graph: _Graph, request: PromptRequest, picture: str, vae: Link) -> Link:
    if isinstance(request, DrawRequest):
        size = {"width": request.width, "height": request.height}
        return graph.add("EmptyLatentImage", "Size", **size, batch_size=1)(0)
    pixels = graph.add("LoadImage", "Picture", image=picture)
    return graph.add("VAEEncode", "Encode", pixels=pixels(0), vae=vae)(0)


def _sampler(server: Server, wanted: str | None) -> tuple[str, str]:
    """Sampler and noise levels as the server calls them."""
    name = wanted or USUAL
    known = _offered(server, "KSampler", "sampler_name")
    plain = name.removesuffix(KARRAS)
    if plain not in known:
        raise DependencyMissingError(
            f"ComfyUI at {server.url} has no sampler {name!r}",
            "choose another scheduler, such as euler or dpmpp_2m",
        )
    return plain, "karras" if plain != name else "normal"


def _named(server: Server, node: str, name: str, wanted: str | None, what: str) -> str:
    known = _offered(server, node, name)
    found = [each for each in known if wanted is None or _is(each, wanted)]
    if not found:
        said = "has no checkpoint" if wanted is None else f"has no {what} {wanted!r}"
        raise DependencyMissingError(
            f"ComfyUI at {server.url} {said}; it has {', '.join(known[:20]) or 'none'}",
            "put it into the folder of models of that ComfyUI, or name one that it has",
        )
    return found[0]


def _is(offered: str, wanted: str) -> bool:
    path = PurePosixPath(offered.replace("\\", "/"))
    return wanted in (offered, path.name, path.stem, str(path.with_suffix("")))


def _offered(server: Server, node: str, name: str) -> Sequence[str]:
    known = server.answer("GET", f"/object_info/{node}")
    told = {kind: each for kind, each in known.items() if isinstance(each, dict)}
    choices = choices_of(config_of(told, node, name)) or []
    return [each for each in choices if isinstance(each, str)]
