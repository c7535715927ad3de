"""The form of a workflow, made of its JSON schema: fields in groups, what was typed, what is wrong.

A form is text as a person typed it. It stands in the address by the names of the fields.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import JsonValue

from safelight.client.contracts import Described, kinds, types
from safelight.gateway.page.words import say

Kind = Literal[
    "prompt", "text", "number", "seed", "switch", "choice", "file", "model", "loras", "character",
    "words", "json",
]  # fmt: skip
BOOLEAN = frozenset({"boolean"})
LONG = 500
"""Characters from which on a text gets several lines."""
STEPS_OF_SLIDER = 400
"""A slider has at most this many places."""
MODEL_TYPES = {
    "model": "checkpoint",
    "vae": "vae",
    "controlnet_model": "controlnet",
    "ipadapter_model": "ip_adapter",
    "base_model": "checkpoint",
}
"""Fields that name a model, and of which type."""
IN_SIGHT = (
    "prompt", "image", "images", "mask", "video", "audio", "identity_reference", "reference",
    "consent_given", "consent_by", "quality", "quality_preset", "width", "height", "strength",
    "character", "num_images", "target_fps", "duration_seconds", "seed",
)  # fmt: skip
"""What every run needs, in this order; beside what must be given."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "look": (
        "negative_prompt", "model", "loras", "steps", "guidance_scale", "scheduler", "vae",
        "embeddings", "style",
    ),
    "guide": ("use_controlnet", "controlnet_", "further_controlnets", "use_ipad", "ipadapter_"),
    "finish": ("use_facedetailer", "use_upscale", "canvas_", "mask_blur", "upscale", "grain"),
}  # fmt: skip
"""Groups that are closed at first, by the beginnings of names."""


@dataclass(frozen=True)
class Option:
    """One of several values."""

    value: str
    label: str


@dataclass(frozen=True)
class Field:
    """One parameter of a form."""

    name: str
    """As the workflow calls it; `overrides.STEP.NAME` within a step of a preset."""
    kind: Kind
    description: str = ""
    required: bool = False
    value: str = ""
    """As text; empty where nothing was given."""
    default: str = ""
    """What holds then."""
    options: tuple[Option, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    whole: bool = False
    """Numbers without a fraction."""
    many: bool = False
    """Several files."""
    longest: int | None = None
    model_type: str = ""
    error: str = ""

    @property
    def shown(self) -> str:
        """The value that holds."""
        return self.value or self.default

    @property
    def slides(self) -> bool:
        """Whether a slider serves."""
        if self.kind != "number" or self.low is None or self.high is None:
            return False
        places = (self.high - self.low) / (self.step or (1 if self.whole else 0.05))
        return places <= STEPS_OF_SLIDER

    @property
    def limits(self) -> str:
        """What may be given, for people."""
        if self.kind == "seed":
            return say("form.seed_hint")
        if self.low is not None and self.high is not None:
            return say("form.range", low=plain(self.low), high=plain(self.high))
        if self.low is not None:
            return say("form.from", low=plain(self.low))
        return "" if self.required else say("form.optional") if not self.default else ""

    @property
    def files(self) -> list[str]:
        """Links of the files that were given."""
        if not self.value:
            return []
        if not self.value.startswith("["):
            return [self.value]
        try:
            return [str(each) for each in json.loads(self.value)]
        except ValueError:
            return [self.value]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """LoRAs that were given."""
        try:
            found = json.loads(self.value or "[]")
        except ValueError:
            return []
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


@dataclass(frozen=True)
class Group:
    """Fields that are closed at first."""

    name: str
    title: str
    fields: tuple[Field, ...]

    @property
    def present(self) -> str:
        """Their values, for the closed group."""
        told = [f"{say_name(each.name)} {_short(each.shown)}" for each in self.fields if each.shown]
        return ", ".join(told[:5])

    @property
    def is_wrong(self) -> bool:
        """Whether something in it is wrong, so that it must be open."""
        return any(each.error for each in self.fields)

    @property
    def is_touched(self) -> bool:
        """Whether a person changed something in it."""
        return any(each.value and each.value != each.default for each in self.fields)


@dataclass(frozen=True)
class Form:
    """All fields of a workflow."""

    workflow: str
    sight: tuple[Field, ...]
    groups: tuple[Group, ...] = field(default=())

    @property
    def fields(self) -> Iterator[Field]:
        """All of them."""
        yield from self.sight
        for group in self.groups:
            yield from group.fields

    @property
    def by_name(self) -> dict[str, Field]:
        """All of them by their names."""
        return {each.name: each for each in self.fields}


def say_name(name: str) -> str:
    """The last part of a field's name as people read it."""
    return name.rpartition(".")[2].replace("_", " ")


def plain(number: float) -> str:
    """A number without a fraction that says nothing."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def _short(text: str) -> str:
    if text in ("true", "false"):
        return say("form.on") if text == "true" else say("form.off")
    return text if len(text) <= 24 else f"{text[:23]}…"


def form_of(
    workflow: str,
    described: Described,
    given: Mapping[str, str],
    levels: Mapping[str, JsonValue] | None = None,
) -> Form:
    """The form of a workflow with what was typed.

    Args:
        workflow: as a job names it.
        described: its parameters.
        given: text by the names of fields.
        levels: of a preset: tuned values of each step, by quality.
    """
    every = [
        _field(name, part, given.get(name, ""))
        for name, part in described.items()
        if name != "overrides" or not levels
    ]
    tuned = [*_tuned(levels or {}, given)]
    order = {name: at for at, name in enumerate(IN_SIGHT)}
    sight = sorted(
        (each for each in every if each.required or each.name in order),
        key=lambda each: order.get(each.name, len(order) if not each.required else 3),
    )
    left = [each for each in every if each not in sight]
    groups: list[Group] = []
    for name, starts in GROUPS.items():
        mine = tuple(each for each in left if each.name.startswith(starts))
        left = [each for each in left if each not in mine]
        if mine:
            groups.append(Group(name, say(f"group.{name}"), mine))
    if left:
        groups.append(Group("more", say("group.more"), tuple(left)))
    return Form(workflow, tuple(sight), (*groups, *tuned))


def _tuned(levels: Mapping[str, JsonValue], given: Mapping[str, str]) -> Iterator[Group]:
    """The steps of a preset at the quality that is chosen, each a group of its own."""
    quality = given.get("quality") or (
        "standard" if "standard" in levels else next(iter(levels), "")
    )
    level = cast("dict[str, JsonValue]", levels.get(quality) or {})
    for step, values in level.items():
        if not isinstance(values, dict):
            continue
        fields = tuple(
            _tuned_field(f"overrides.{step}.{name}", value, given)
            for name, value in values.items()
            if name not in ("prompt", "seed")
        )
        if fields:
            title = say("group.step", step=step.replace("_", " "))
            yield Group(f"step-{step}", title, fields)


def _tuned_field(name: str, value: JsonValue, given: Mapping[str, str]) -> Field:
    kind: Kind = "json"
    if isinstance(value, bool):
        kind = "switch"
    elif isinstance(value, int | float):
        kind = "number"
    elif isinstance(value, str) or value is None:
        kind = "text"
    short = name.rpartition(".")[2]
    if short in MODEL_TYPES and kind == "text":
        kind = "model"
    return Field(
        name=name,
        kind=kind,
        value=given.get(name, ""),
        default=text_of(value),
        whole=isinstance(value, int),
        model_type=MODEL_TYPES.get(short, "") if kind == "model" else "",
    )


def _field(name: str, part: Mapping[str, Any], value: str) -> Field:
    several = kinds(part)
    numbers = next((k for k in several if k.get("type") in ("integer", "number")), {})
    texts = next((k for k in several if k.get("type") == "string"), {})
    options = tuple(str(each) for kind in several for each in kind.get("enum") or ())
    longest = texts.get("maxLength")
    return Field(
        name=name,
        kind=_kind(name, part, longest),
        description=str(part.get("description") or ""),
        required=bool(part.get("required")),
        value=value,
        default=text_of(part.get("default")),
        options=_options(part, options),
        low=numbers.get("minimum", numbers.get("exclusiveMinimum")),
        high=numbers.get("maximum", numbers.get("exclusiveMaximum")),
        step=numbers.get("multipleOf"),
        whole=numbers.get("type") == "integer",
        many="array" in types(part),
        longest=longest,
        model_type=MODEL_TYPES.get(name, ""),
    )


def _options(part: Mapping[str, Any], options: Sequence[str]) -> tuple[Option, ...]:
    if types(part) == BOOLEAN and part.get("default") is None:
        options = ("true", "false")
    names = {"true": say("form.yes"), "false": say("form.no")}
    return tuple(Option(each, names.get(each, each.replace("_", " "))) for each in options)


def _kind(name: str, part: Mapping[str, Any], longest: int | None) -> Kind:
    told = types(part)
    about = json.dumps(part)
    if any(kind.get("enum") for kind in kinds(part)):
        return "choice"
    if told == BOOLEAN:
        return "choice" if part.get("default") is None else "switch"
    if name == "seed":
        return "seed"
    if "store:" in about and told <= {"string", "array"} and "$ref" not in about:
        return "file"
    if name == "loras":
        return "loras"
    if name == "character":
        return "character"
    if name in MODEL_TYPES:
        return "model"
    if told & {"integer", "number"} and told <= {"integer", "number"}:
        return "number"
    if told == frozenset({"array"}) and (part.get("items") or {}).get("type") == "string":
        return "words"
    if told == frozenset({"string"}):
        return "prompt" if (longest or 0) >= LONG else "text"
    return "json"


def text_of(value: object) -> str:
    """A value as the form holds it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict) and not value:
        return ""
    return json.dumps(value, ensure_ascii=False)
