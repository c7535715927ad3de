"""What a flow takes, known without a server: its schema, and a check with the command's words.

The command sits below the flows in the layers, so it does not import them: it loads a flow from
its entrypoint, the text that it also gives the deployment, as Prefect itself does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Protocol, cast, runtime_checkable

from prefect.utilities.callables import ParameterSchema
from prefect.utilities.importtools import import_object
from pydantic import JsonValue, ValidationError

from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)
from safelight.params import shown
from safelight.workflows.files import workflow_of

WORKFLOWS = "workflow"
"""Module of the flows that run workflows."""
Described = Mapping[str, Mapping[str, Any]]
"""Name of a parameter to its JSON schema, references resolved at the top."""


def module_of(flow: str) -> str:
    """The module that has a flow; those of workflows share one, which makes them."""
    return f"flows.{flow if workflow_of(flow) is None else WORKFLOWS}"


def entrypoint(flow: str) -> str:
    """Where the code of a flow is."""
    return f"{module_of(flow)}.{flow}"


@runtime_checkable
class CheckedFlow(Protocol):
    """What every flow of this project is."""

    name: str
    """Also of its deployment."""
    description: str | None
    """What it does."""
    parameters: ParameterSchema
    """Of its form."""

    def checked(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their types, or our error made of pydantic's."""
        ...


@dataclass(frozen=True)
class Contract:
    """A flow of this checkout."""

    flow: CheckedFlow
    """Loaded, not run."""

    @property
    def described(self) -> Described:
        """Its parameters in their order."""
        schema = self.flow.parameters.model_dump()
        return described(schema)

    def check(self, given: Mapping[str, JsonValue], *, partly: bool = False) -> None:
        """Refuse what the flow would refuse, naming the options that were typed.

        Args:
            given: parameters, numbers and switches also as text.
            partly: the rest comes from elsewhere, so that nothing is missing.

        Raises:
            ContractMismatchError: there is no such option.
            MissingRequiredFieldError: an option without a default was left out.
            InvalidFieldValueError: a value is outside its limits.
        """
        refuse_unknown(given, self.described, self.flow.name)
        try:
            self.flow.checked(dict(given))
        except PipelineError as refused:
            cause = refused.__cause__
            if not isinstance(cause, ValidationError):
                raise
            self._refuse(cause, partly=partly)

    def _refuse(self, cause: ValidationError, *, partly: bool) -> None:
        errors = cause.errors(include_url=False)
        missing = [option(str(error["loc"][0])) for error in errors if error["type"] == "missing"]
        if missing and not partly:
            raise MissingRequiredFieldError(
                f"{self.flow.name} needs {', '.join(missing).replace('--', '')}",
                f"add {' and '.join(missing)}",
            ) from cause
        for error in errors:
            if error["type"] == "missing" and len(error["loc"]) == 1:
                continue
            name, *inside = (str(part) for part in error["loc"])
            where = f" at {'.'.join(inside)}" if inside else ""
            found = shown(error["input"])
            expected = (
                error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            )
            raise InvalidFieldValueError(
                f"{self.flow.name}: {option(name)}{where} is {found}: {expected}",
                f"correct {option(name)}",
            ) from cause


def contract(flow: str) -> Contract:
    """The contract of a flow that this checkout has.

    Raises:
        ContractMismatchError: it has none of this name.
    """
    if not flow.isidentifier():
        raise ContractMismatchError(f"{flow!r} is no name of a flow", "correct the name")
    try:
        found = import_object(entrypoint(flow))
    except ModuleNotFoundError as error:
        if error.name != module_of(flow):
            raise
        raise _no_flow(flow) from error
    except AttributeError as error:
        raise _no_flow(flow) from error
    if not isinstance(found, CheckedFlow):
        raise _no_flow(flow)
    return Contract(found)


def _no_flow(flow: str) -> ContractMismatchError:
    package = find_spec("flows")
    there = [one.name for one in iter_modules(package and package.submodule_search_locations)]
    near = get_close_matches(flow, there, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return ContractMismatchError(
        f"there is no flow {flow!r}{meant}", "name a preset (safelight presets list) or a stage"
    )


def option(name: str) -> str:
    """How a parameter is typed."""
    owner, dot, field = name.rpartition(".")
    return f"--{owner}{dot}{field.replace('_', '-')}"


def refuse_unknown(given: Iterable[str], known: Described, where: str) -> None:
    """Refuse an option that is not among the known ones, and name the one that is meant.

    Raises:
        ContractMismatchError: there is none of this name.
    """
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1)
        meant = f"; did you mean {option(near[0])}?" if near else ""
        there = ", ".join(option(other) for other in known) or "no options"
        raise ContractMismatchError(
            f"there is no option {option(name)[:80]}{meant}",
            f"write {option(near[0])}" if near else f"use what {where} takes: {there}",
        )


def described(schema: Mapping[str, Any]) -> Described:
    """The properties of a JSON schema, in their order."""
    shared = {**(schema.get("definitions") or {}), **(schema.get("$defs") or {})}
    found = {
        name: _resolved(part, shared) for name, part in (schema.get("properties") or {}).items()
    }
    required = schema.get("required") or ()
    return {name: {**part, "required": name in required} for name, part in found.items()}


def _resolved(part: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        named = shared.get(str(part["$ref"]).rpartition("/")[2], {})
        return {**named, **{key: value for key, value in part.items() if key != "$ref"}}
    if "anyOf" in part:
        return {**part, "anyOf": [_resolved(kind, shared) for kind in part["anyOf"]]}
    return dict(part)


def kinds(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a parameter, without null."""
    found = cast("list[Mapping[str, Any]]", part.get("anyOf") or [part])
    return [kind for kind in found if kind.get("type") != "null"]


def types(part: Mapping[str, Any]) -> frozenset[str]:
    """JSON types of a parameter; an unknown one is called `any`."""
    return frozenset(str(kind.get("type") or "any") for kind in kinds(part))
