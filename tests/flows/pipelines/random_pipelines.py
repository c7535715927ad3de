"""Pipelines drawn at random: those that run, and those with anything in them."""

from typing import Any

from hypothesis import strategies as st

from safelight.store.artifact import MediaKind

Described = dict[str, Any]
KEEPING: dict[str, tuple[tuple[MediaKind, ...], dict[str, Any]]] = {
    "grade": (("image", "video"), {"colour": "warm", "grain": 0.1, "seed": 1}),
    "denoise": (("image", "video"), {"level": 0.5}),
    "check": (("image", "video"), {"policy": "warn"}),
    "deflicker": (("video",), {}),
    "refine": (("image",), {"steps": 4, "refinement_level": 0.5}),
    "transform": (("image",), {"prompt": "a cat", "steps": 2}),
}
"""Stages of one input whose result has its kind and size: what they take, and few parameters."""
ENDING: dict[str, tuple[tuple[MediaKind, ...], dict[str, Any]]] = {
    "upscale": (("image", "video"), {"upscale_factor": 2, "model": "video", "tile": 64}),
    "enhance": (("image",), {"quality_preset": "low"}),
    "interpolate": (("video",), {"target_fps": 50}),
    "storyboard": (("image", "video"), {"cell": 64}),
    "dub": (("video",), {}),
}
"""Stages whose result no other of them may read: it has another size or rate."""
WRONG: list[tuple[str, Any]] = [
    ("level", 7),
    ("steps", 0),
    ("steps", "many"),
    ("grian", 1),
    ("seed", -5),
    ("prompt", "{a|"),
    ("strength", None),
]


@st.composite
def running(draw: st.DrawFn) -> Described:
    """A pipeline that runs, for an `image`, `mask`, `video` and `audio` of one size."""
    kinds: dict[str, MediaKind] = {"image": "image", "video": "video"}
    stages: list[Described] = []
    for at in range(draw(st.integers(1, 5))):
        name, of_pictures = f"s{at}", [each for each, kind in kinds.items() if kind == "image"]
        kind = draw(st.sampled_from(["keeping", "generate", "blend", "inpaint"]))
        parameters: Described = {}
        reads: list[str] = []
        gives: MediaKind = "image"
        if kind == "keeping":
            kind = draw(st.sampled_from(sorted(KEEPING)))
            may_be, parameters = KEEPING[kind]
            reads = [draw(st.sampled_from([each for each in kinds if kinds[each] in may_be]))]
            gives = kinds[reads[0]]
        elif kind == "generate":
            parameters = {"prompt": "a dog", "width": 64, "height": 64, "steps": 2}
        elif kind == "blend":
            reads = draw(st.lists(st.sampled_from(of_pictures), min_size=2, max_size=4))
        else:
            reads = [draw(st.sampled_from(of_pictures)), "mask"]
            parameters = {"prompt": "a hat", "steps": 2}
        kinds[name] = gives
        stages.append(_spec(kind, name, reads, parameters))
    for at in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(sorted(ENDING)))
        may_be, parameters = ENDING[kind]
        reads = [draw(st.sampled_from([each for each in kinds if kinds[each] in may_be]))]
        reads += ["audio"] if kind == "dub" else []
        stages.append(_spec(kind, f"end{at}", reads, parameters))
    return {"stages": draw(st.permutations(stages))}


def _spec(kind: str, name: str, reads: list[str], parameters: Described) -> Described:
    return {"stage_type": kind, "name": name, "reads": reads, "parameters": dict(parameters)}


@st.composite
def wild(draw: st.DrawFn) -> Described:
    """A pipeline that runs, or one in which up to four things are changed at random."""
    described = draw(running())
    stages: list[Described] = described["stages"]
    for _ in range(draw(st.integers(0, 4))):
        spec = draw(st.sampled_from(stages))
        names = [str(each.get("name")) for each in stages]
        what = draw(st.integers(0, 9))
        if what == 0:
            spec["stage_type"] = draw(st.sampled_from(["upscale", "sharpen", "dub", "comfy", 5]))
        elif what == 1:
            spec["name"] = draw(st.sampled_from([*names, "mask", "a b", ""]))
        elif what == 2:
            anything = st.sampled_from([*names, "image", "video", "audio", "nobody"])
            spec["reads"] = draw(st.lists(anything, max_size=3))
        elif what == 3:
            spec.pop("reads", None)
        elif what == 4:
            field, value = draw(st.sampled_from(WRONG))
            spec["parameters"] = {**_mapping(spec.get("parameters")), field: value}
        elif what == 5:
            spec["nmae"] = "x"
        elif what == 6:
            field, value = draw(st.sampled_from(WRONG))
            described["parameters"] = {field: value}
        elif what == 7:
            spec.pop(draw(st.sampled_from(["stage_type", "name", "parameters"])), None)
        elif what == 8:
            spec["parameters"] = draw(st.sampled_from([[], "fast", None, {}]))
        else:
            described[draw(st.sampled_from(["stagess", "seed", "version"]))] = "x"
    return described


def _mapping(value: object) -> Described:
    return value if isinstance(value, dict) else {}
