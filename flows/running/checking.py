"""A flow whose parameters are checked by us, and whose form is made when somebody reads it."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, ParamSpec

from prefect import Flow
from prefect.utilities.callables import ParameterSchema, parameter_schema
from pydantic import ValidationError

from flows.running.consenting import check_consent
from flows.running.prompts import check_prompts
from flows.running.signature import parameters_model
from safelight.errors import PipelineError
from safelight.params import refusal, refuse_unkept
from safelight.provenance.manifest import RunResult

P = ParamSpec("P")
_refused: ContextVar[tuple[PipelineError, dict[str, Any]] | None] = ContextVar(
    "refused", default=None
)


def refused_parameters() -> tuple[PipelineError, dict[str, Any]] | None:
    """Why the parameters of the run that begins are refused, and those parameters; told once."""
    refused = _refused.get()
    _refused.set(None)
    return refused


class RecordedFlow(Flow[P, RunResult]):
    """A flow that refuses bad parameters with our errors, before anything runs.

    What its form shows is made once, when somebody reads it: for all flows it takes longer than
    anything else that loading them does, and a process that runs one asks for none.
    """

    def __init__(self, fn: Callable[P, RunResult], **options: Any) -> None:  # noqa: ANN401
        self._form: ParameterSchema | None = None
        super().__init__(_formless(fn), **options)
        update_wrapper(self, fn)
        self.fn = fn

    @property
    def parameters(self) -> ParameterSchema:
        """The form: a JSON schema, with the limits of each parameter in its help text."""
        if self._form is None:
            self._form = parameter_schema(self.fn)
        return self._form

    @parameters.setter
    def parameters(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, schema: ParameterSchema
    ) -> None:
        """Leave the form of no parameters, which Prefect sets, aside."""

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Check all parameters, for Prefect, as the run begins.

        What is wrong with them is told by the body: Prefect would put words of its own before the
        message of an exception that came from here, and a traceback into the log.
        """
        try:
            filled = self.checked(parameters)
        except PipelineError as error:
            _refused.set((error, parameters))
            return {}
        _refused.set(None)
        return filled

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """What the server is to keep of a run that a program starts, asked before it is made.

        Raises:
            InvalidFieldValueError: the server cannot keep it.
        """
        kept = super().serialize_parameters(parameters)
        refuse_unkept(kept, self.name)
        return kept

    def checked(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """All parameters, as the signature says.

        Raises:
            MissingRequiredFieldError: a parameter without a default was left out.
            ContractMismatchError: there is no parameter of that name.
            InvalidFieldValueError: a value is outside its limits.
            ConsentMissingError: a preset is to show a person, and nobody says that they agreed.
        """
        model = parameters_model(self.fn)
        try:
            filled = model.model_validate(parameters)
        except ValidationError as error:
            raise refusal(error, self.name) from error
        refuse_unkept(filled.model_dump(mode="json", exclude_unset=True), self.name)
        called = {name: getattr(filled, name) for name in model.model_fields}
        check_prompts(called)
        check_consent(self.name, called)
        return called


def _formless(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of that name and text without parameters."""

    def run() -> None: ...

    run.__name__, run.__qualname__, run.__module__ = fn.__name__, fn.__qualname__, fn.__module__
    return run
