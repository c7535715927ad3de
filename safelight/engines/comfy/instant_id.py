"""InstantID as the nodes of the pack ComfyUI_InstantID draw with it."""

from collections.abc import Sequence

from safelight.engines.comfy.building import Building, Link, named, offered
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph
from safelight.engines.instant_id import InstantIdRequest
from safelight.errors import DependencyMissingError

LOADS, ANALYSES, APPLIES = "InstantIDModelLoader", "InstantIDFaceAnalysis", "ApplyInstantID"
STEERS = "ControlNetLoader"
PROVIDER = "CPU"
"""Faces are looked at once for each picture, and every build of onnxruntime has this."""
Drawn = tuple[Link, Link, Link]
"""Model, prompt and negative prompt."""


def of_person(
    graph: Building,
    server: Server,
    request: InstantIdRequest,
    people: Sequence[str],
    drawn: Drawn,
) -> Drawn:
    """Let a drawing show the person on photographs.

    Args:
        graph: gets the nodes.
        server: whose models are meant.
        request: how strongly, and by which InstantID model.
        people: names of the photographs in the server's folder of inputs, all of one size: a batch
            takes no others as they are.
        drawn: what the sampler would draw from without it.

    Returns:
        What it draws from instead.

    Raises:
        DependencyMissingError: the server lacks the nodes, or a model of InstantID.
    """
    _require_nodes(server)
    adapter = named(server, LOADS, "instantid_file", request.adapter, "model of InstantID")
    steers = _control(server)
    model, positive, negative = drawn
    applied = graph.add(
        APPLIES,
        "InstantID",
        instantid=graph.add(LOADS, "InstantID model", instantid_file=adapter)(0),
        insightface=graph.add(ANALYSES, "Faces", provider=_provider(server))(0),
        control_net=graph.add(STEERS, "InstantID ControlNet", control_net_name=steers)(0),
        image=_photographs(graph, people or ("",)),
        model=model,
        positive=positive,
        negative=negative,
        weight=request.weight,
        start_at=0.0,
        end_at=1.0,
    )
    return applied(0), applied(1), applied(2)


def models_of_person(graph: Graph) -> tuple[str, ...]:
    """Names of the models that a workflow adds to show a person; none where it shows none."""
    wanted = {LOADS: "instantid_file", STEERS: "control_net_name"}
    return tuple(
        str(node.inputs[wanted[node.class_type]])
        for node in graph.values()
        if node.class_type in wanted
    )


def _photographs(graph: Building, people: Sequence[str]) -> Link:
    first, *others = (graph.add("LoadImage", "Photograph", image=each)(0) for each in people)
    for other in others:
        first = graph.add("ImageBatch", "Photographs", image1=first, image2=other)(0)
    return first


def _require_nodes(server: Server) -> None:
    for kind in (LOADS, ANALYSES, APPLIES):
        if not isinstance(server.answer("GET", f"/object_info/{kind}").get(kind), dict):
            raise DependencyMissingError(
                f"ComfyUI at {server.url} has no node type {kind!r}, which InstantID takes",
                "install ComfyUI_InstantID among its custom nodes, with insightface and the "
                "models antelopev2; or set method to ip_adapter",
            )


def _provider(server: Server) -> str:
    known = offered(server, ANALYSES, "provider")
    return PROVIDER if PROVIDER in known or not known else known[0]


def _control(server: Server) -> str:
    """The ControlNet that was trained with InstantID: nothing but its name tells it from others."""
    known = offered(server, STEERS, "control_net_name")
    found = [each for each in known if "instantid" in _letters(each)]
    if not found:
        raise DependencyMissingError(
            f"ComfyUI at {server.url} has no ControlNet with instantid in its name; it has "
            f"{', '.join(known[:20]) or 'none'}",
            "put the ControlNet of InstantID into models/controlnet of that ComfyUI, such as "
            "instantid/diffusion_pytorch_model.safetensors",
        )
    return found[0]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
