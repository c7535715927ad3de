"""The base of every parameter model, and how pydantic's refusals become ours."""

from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)


class Params(BaseModel):
    """Frozen parameters: unknown fields are refused, attribute docstrings become help texts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def but(self, **changes: object) -> Self:
        """The same parameters with some fields changed, all of them checked again.

        Raises:
            PipelineError: as `refusal` describes.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            return type(self).model_validate({**kept, **changes})
        except ValidationError as error:
            raise refusal(error, type(self).__name__) from error


P = TypeVar("P", bound=Params)


def refusal(error: ValidationError, where: str) -> PipelineError:
    """The first thing pydantic refused, as an error with a code, what was found and a remedy.

    Args:
        error: what pydantic raised.
        where: stage, preset or model that was being filled in, for the message.
    """
    first, *others = error.errors(include_url=False)
    field = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "missing":
        return MissingRequiredFieldError(
            f"{where}: field {field} is missing{more}", f"give {field} a value"
        )
    if first["type"] == "extra_forbidden":
        return ContractMismatchError(
            f"{where}: there is no field {field}{more}", f"remove {field} or correct its name"
        )
    expected = first["msg"].removeprefix("Value error, ")
    if not field:
        return InvalidFieldValueError(f"{where}: {expected}{more}", "correct the fields it names")
    found = repr(first["input"])
    found = found if len(found) <= 80 else f"{found[:77]}..."
    return InvalidFieldValueError(
        f"{where}: field {field} is {found}: {expected}{more}", f"correct {field}"
    )


def checked(params_type: type[P], where: str, **fields: object) -> P:
    """Parameters made of values that a caller gave, refused with our errors.

    Args:
        params_type: the model to fill.
        where: what the message calls it, usually the stage.
        fields: the values.

    Raises:
        PipelineError: as `refusal` describes.
    """
    try:
        return params_type.model_validate(fields)
    except ValidationError as error:
        raise refusal(error, where) from error
