"""What the form of a workflow shows: which inputs of which nodes, with their limits."""

import keyword
import re
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from safelight.engines.graphs import Graph, Node, Place, Scalar, place_of
from safelight.errors import ContractMismatchError
from safelight.params import Params, refusal
from safelight.plain_yaml import plain_yaml

Kind = Literal["text", "seed", "integer", "number", "switch", "choice", "image", "video", "audio"]
MEDIA = ("image", "video", "audio")
MOST_INPUTS = 1000
MOST_CHOICES = 300
"""Longer lists are no enum: any text is taken, and held against the server before it runs."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
RESERVED = frozenset({"workflow", "output", "names", "json", "help", "self", "flow", "file"})
"""Names that mean something else where runs are started."""


class Input(Params):
    """One field of the form, and where what it holds goes."""

    at: str = Field(min_length=3, max_length=300)
    """NODE.INPUT, the node by its id."""
    kind: Kind
    """What it takes."""
    shown: bool = True
    """Whether the form has it; what is not shown keeps the workflow's value."""
    title: str = Field(default="", max_length=500)
    """What the form says of it."""
    default: Scalar | None = None
    """What it holds unless a run says otherwise; none: the workflow's own value."""
    least: int | float | None = None
    """Smallest number."""
    most: int | float | None = None
    """Largest number."""
    choices: tuple[Scalar, ...] = Field(default=(), max_length=MOST_CHOICES)
    """What a choice may be."""

    @model_validator(mode="after")
    def _choices_are_there(self) -> Self:
        if self.kind == "choice" and not self.choices:
            raise ValueError("a choice needs choices")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}")
        return self


class Form(Params):
    """All that is known of a workflow's inputs; a person may edit it."""

    about: str = Field(default="", max_length=2000)
    """What the workflow does, in a sentence."""
    inputs: dict[str, Input] = Field(default_factory=dict[str, Input], max_length=MOST_INPUTS)
    """By the name of the parameter, in the order of the form."""

    @field_validator("inputs")
    @classmethod
    def _names_are_names(cls, inputs: dict[str, Input]) -> dict[str, Input]:
        for name in inputs:
            if not is_name(name):
                raise ValueError(
                    f"{name[:80]!r} is no name of an input: small letters, digits and _, and none "
                    f"of {', '.join(sorted(RESERVED))}"
                )
        return inputs

    def shown(self) -> dict[str, Input]:
        """The inputs that people see."""
        return {name: each for name, each in self.inputs.items() if each.shown}


def is_name(name: str) -> bool:
    """Whether a parameter may be called so."""
    return bool(_NAME.fullmatch(name)) and name not in RESERVED and not keyword.iskeyword(name)


def form_in(text: bytes, graph: Graph, workflow: str) -> Form:
    """A form as its file has it, held against its workflow.

    Raises:
        InvalidFieldValueError: no YAML, or a value is not what it should be.
        ContractMismatchError: an unknown field, or the workflow has no such input.
    """
    where = f"workflows/{workflow}.yaml"
    found = plain_yaml(text, where)
    try:
        form = Form.model_validate(found)
    except ValidationError as error:
        raise refusal(error, where) from error
    taken: dict[Place, str] = {}
    for name, each in form.inputs.items():
        place = place_of(graph, each.at, workflow)
        if place.input not in graph[place.node].inputs:
            raise ContractMismatchError(
                f"{where}: {name} is at {each.at}, and {graph[place.node]} has no such input",
                f"correct it, or make the form anew: safelight workflow form {workflow} --anew",
            )
        if place in taken:
            raise ContractMismatchError(
                f"{where}: {name} and {taken[place]} are both at {each.at}", "remove one of them"
            )
        taken[place] = name
    return form


def form_text(form: Form) -> bytes:
    """A form as people edit it."""
    described: dict[str, Any] = {"about": form.about, "inputs": {}}
    for name, each in form.inputs.items():
        described["inputs"][name] = each.model_dump(mode="json", exclude_defaults=True)
    body = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=100)
    return (HEAD + body).encode()


HEAD = """\
# The form of this workflow. Rename inputs, give them titles, defaults and narrower limits; with
# `shown: false` an input keeps the value that the workflow has. Then: safelight deploy
"""


def value_at(graph: Graph, place: Place) -> object:
    """What the workflow holds there."""
    node: Node = graph[place.node]
    return node.inputs.get(place.input)
