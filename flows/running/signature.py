"""Signatures made at run time: what Prefect, its form and our checks read of a flow's function.

Prefect makes a form of a function's signature: the types and limits of its parameters, their
defaults, and the help texts of the docstring's Args section. Here

- `parameters_model` makes the pydantic model of a signature, which refuses what the form would;
- `documented` writes the Args section from the descriptions and limits in the types;
- `wear` gives a function the parameters of a stage, for flows of one stage;
- `renamed` gives a flow another name, so that Prefect counts its calls apart.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from prefect import Flow
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

from flows.running.inputs import Media, Several
from safelight.params import number_said, refuse_boolean_numbers
from safelight.weights.offered import said_of_offered
from tasks.base.stage import Stage

T = TypeVar("T")


def parameters_model(fn: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model with one field for each parameter of a function; others are refused."""
    return _model_of(inspect.unwrap(fn))


@lru_cache(maxsize=256)
def _model_of(fn: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(fn, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(fn).parameters.items()
    }
    config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    checks: dict[str, Any] = {"numbers": model_validator(mode="before")(_numbers_are_numbers)}
    return create_model(fn.__name__, __config__=config, __validators__=checks, **fields)


def _numbers_are_numbers(cls: type[BaseModel], given: Any) -> Any:  # noqa: ANN401
    return refuse_boolean_numbers(cls, given)


def documented(body: Callable[..., Any]) -> str:
    """The docstring with an Args section: the form's help texts, from the field descriptions.

    The form shows nothing of a number's limits by itself, so they stand in the text, and so do the
    names of the models that there are.
    """
    hints = get_type_hints(body, include_extras=True)
    lines = [inspect.cleandoc(body.__doc__ or body.__name__).partition("\n\n")[0], "", "Args:"]
    schemas = parameters_model(body).model_json_schema()["properties"]
    for name in inspect.signature(body).parameters:
        described = (getattr(extra, "description", None) for extra in get_args(hints[name])[1:])
        text = next((text for text in described if text), name)
        limits = _limits(schemas[name])
        said = f"{text} {limits} {said_of_offered(name)}"
        lines.append(f"    {name}: {' '.join(said.split())}")
    return "\n".join(lines)


def _limits(schema: dict[str, Any]) -> str:
    """A sentence with the limits of a number, or of the number among alternatives."""
    kinds = [schema, *schema.get("anyOf", ())]
    number = next((kind for kind in kinds if kind.get("type") in ("integer", "number")), {})
    low, high = number.get("minimum"), number.get("maximum")
    parts: list[str] = []
    if low is not None and high is not None:
        parts.append(f"{number_said(low)} to {number_said(high)}")
    elif low is not None:
        parts.append(f"at least {number_said(low)}")
    elif high is not None:
        parts.append(f"at most {number_said(high)}")
    if "multipleOf" in number:
        parts.append(f"a multiple of {number_said(number['multipleOf'])}")
    sentence = ", ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def wear(
    body: Callable[..., Any],
    stage: Stage[..., Any],
    media: Iterable[str],
    after: Callable[..., Any] | None = None,
    before: Callable[..., Any] | None = None,
) -> None:
    """Give a function the name, text and parameters of a stage's own flow.

    Args:
        body: takes everything by keyword.
        stage: each of its parameters becomes one of the function's.
        media: names of the media parameters, which come first.
        after: a function whose parameters from the third on come last.
        before: one whose parameters from the second on come before those.
    """
    last = list(stage.reads)[-1:] if stage.gathers else []
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=Several if name in last else Media
        )
        for name in media
    ]
    parameters += fields_as_parameters(stage.params_type)
    for further, own in ((before, 1), (after, 2)):
        if further is None:
            continue
        hints = get_type_hints(further, include_extras=True)
        parameters += [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name])
            for each in list(inspect.signature(further).parameters.values())[own:]
        ]
    body.__name__ = body.__qualname__ = stage.name
    body.__doc__ = inspect.getdoc(stage.fn)
    body.__module__ = f"flows.{stage.name}"
    body.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def fields_as_parameters(model: type[BaseModel]) -> list[inspect.Parameter]:
    """One parameter for each field of a model, with its limits, help text and default."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[
                info.annotation, *info.metadata, Field(description=info.description)
            ],
            default=inspect.Parameter.empty
            if info.is_required()
            else info.get_default(call_default_factory=True),
        )
        for name, info in model.model_fields.items()
    ]


def with_fields_of(*models: type[BaseModel]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a function that takes `**options` a parameter for each field of some models."""

    def decorate(body: Callable[..., T]) -> Callable[..., T]:
        hints = get_type_hints(body, include_extras=True)
        own = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name])
            for each in inspect.signature(body).parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [*own, *(each for model in models for each in fields_as_parameters(model))]
        body.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        body.__annotations__ = {each.name: each.annotation for each in parameters}
        return body

    return decorate


def renamed(target: Flow[..., Any], name: str) -> Flow[..., Any]:
    """The flow under a name of its own in the run's graph.

    Prefect tells the subflows of a run apart by counting calls. Made again after a crash, with a
    file that has changed since, the third call would get the result of another request.
    """

    @wraps(target.fn)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the flow's own parameters)
        return target.fn(*args, **kwargs)

    run.__qualname__ = f"{target.name}-{name}"
    named = copy.copy(target)
    named.fn = run
    return named
