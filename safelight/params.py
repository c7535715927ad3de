"""The base of every parameter model, and how pydantic's refusals become ours."""

from typing import Self

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


def refusal(error: ValidationError, where: str) -> PipelineError:
    """The first thing pydantic refused, as an error with a code, what was found and a remedy.

    Args:
        error: what pydantic raised.
        where: stage, preset or model that was being filled in, for the message.
    """
    first, *others = error.errors(include_url=False)
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "missing":
        return MissingRequiredFieldError(
            f"{where}: field {field} is missing{more}", f"give {field} a value"
        )
    if first["type"] == "extra_forbidden":
        return ContractMismatchError(
            f"{where}: there is no field {field}{more}", f"remove {field} or correct its name"
        )
    found = repr(first["input"])
    found = found if len(found) <= 80 else f"{found[:77]}..."
    expected = first["msg"].removeprefix("Value error, ")
    return InvalidFieldValueError(
        f"{where}: field {field} is {found}: {expected}{more}", f"correct {field}"
    )
