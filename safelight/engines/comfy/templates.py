"""Workflows that stages are drawn by: a template for each way to draw, filled with a request."""

from collections.abc import Sequence

from safelight.engines.comfy.building import Building, Link, named, offered
from safelight.engines.comfy.instant_id import of_person
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph
from safelight.engines.instant_id import InstantIdRequest
from safelight.engines.interface import DrawRequest, PromptRequest, RedrawRequest
from safelight.errors import DependencyMissingError, MissingRequiredFieldError
from safelight.params import SEEDS

KARRAS = "_karras"
"""How names of samplers end whose noise levels are Karras's."""
USUAL = "euler"
SAVED = "safelight"


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


def drawn_by(
    server: Server, request: PromptRequest, picture: str = "", people: Sequence[str] = ()
) -> Graph:
    """The workflow that draws a request, with names as the server has them.

    Args:
        server: whose models are meant.
        request: what to draw.
        picture: name of the picture that is drawn over, in the server's folder of inputs.
        people: names of the photographs of the person to draw, there too.

    Raises:
        DependencyMissingError: the server has no such model, LoRA, VAE, sampler or node.
        MissingRequiredFieldError: there is no seed.
    """
    if request.seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    sampler, levels = _sampler(server, request.scheduler)
    graph = Building()
    loader = graph.add("CheckpointLoaderSimple", "Model", ckpt_name=checkpoint(server, request))
    model, clip, vae = loader(0), loader(1), loader(2)
    for use in request.loras:
        lora = graph.add(
            "LoraLoader",
            f"LoRA {use.name}",
            model=model,
            clip=clip,
            lora_name=named(server, "LoraLoader", "lora_name", use.name, "lora"),
            strength_model=use.weight,
            strength_clip=use.weight if use.text_weight is None else use.text_weight,
        )
        model, clip = lora(0), lora(1)
    if request.clip_skip > 1:
        clip = graph.add(
            "CLIPSetLastLayer", "Clip skip", clip=clip, stop_at_clip_layer=-request.clip_skip
        )(0)
    if request.vae is not None:
        name = named(server, "VAELoader", "vae_name", request.vae, "vae")
        vae = graph.add("VAELoader", "VAE", vae_name=name)(0)
    positive, negative = (
        graph.add("CLIPTextEncode", title, text=text, clip=clip)(0)
        for title, text in (("Prompt", request.prompt), ("Negative", request.negative_prompt))
    )
    if isinstance(request, InstantIdRequest):
        model, positive, negative = of_person(
            graph, server, request, people, (model, positive, negative)
        )
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
            positive=positive,
            negative=negative,
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
    return named(server, "CheckpointLoaderSimple", "ckpt_name", request.model, "checkpoint")


def _latent(graph: Building, request: PromptRequest, picture: str, vae: Link) -> Link:
    if isinstance(request, DrawRequest):
        size = {"width": request.width, "height": request.height}
        return graph.add("EmptyLatentImage", "Size", **size, batch_size=1)(0)
    pixels = graph.add("LoadImage", "Picture", image=picture)
    return graph.add("VAEEncode", "Encode", pixels=pixels(0), vae=vae)(0)


def _sampler(server: Server, wanted: str | None) -> tuple[str, str]:
    """Sampler and noise levels as the server calls them."""
    name = wanted or USUAL
    known = offered(server, "KSampler", "sampler_name")
    plain = name.removesuffix(KARRAS)
    if plain not in known:
        raise DependencyMissingError(
            f"ComfyUI at {server.url} has no sampler {name!r}",
            "choose another scheduler, such as euler or dpmpp_2m",
        )
    return plain, "karras" if plain != name else "normal"
