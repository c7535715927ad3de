"""The base of every parameter model, and how pydantic's refusals become ours."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, cast, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)

SEEDS = 2**64
"""How many there are; after the last comes 0."""


def _none_for_any(seed: int | None) -> int | None:
    return None if seed == ANY_SEED else seed


ANY_SEED = -1
"""What other programs write for a seed that is to be drawn."""
Seed = Annotated[int | None, Field(ge=ANY_SEED, le=SEEDS - 1), AfterValidator(_none_for_any)]
"""Of what is drawn; None where it is to be drawn itself."""
_UNKEPT = re.compile("[\\x00\\ud800-\\udfff]")


def refuse_boolean_numbers(model: type[BaseModel], given: object) -> object:
    """Refuse true and false where a number is wanted: pydantic takes them for 1 and 0.

    Raises:
        ValueError: which field.
    """
    if isinstance(given, Mapping):
        for name, value in cast("Mapping[object, object]", given).items():
            field = model.model_fields.get(str(name)) if isinstance(value, bool) else None
            if field is not None and _numbers_alone(field.annotation):
                raise ValueError(f"{name} is {str(value).lower()}, expected a number")
    return given


def _numbers_alone(annotation: object) -> bool:
    kinds: set[object] = set()
    waiting = [annotation]
    while waiting:
        kind = waiting.pop()
        if get_origin(kind) in (Union, UnionType):
            waiting += get_args(kind)
        elif get_origin(kind) is Annotated:
            waiting.append(get_args(kind)[0])
        else:
            kinds.add(kind)
    return bool(kinds & {int, float}) and kinds <= {int, float, type(None)}


class Params(BaseModel):
    """Frozen parameters: unknown fields are refused, attribute docstrings become help texts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: Any) -> Any:  # noqa: ANN401
        return refuse_boolean_numbers(cls, given)

    def located(self, keep: Callable[[str], str]) -> Self:
        """The same parameters with the pictures that a stage reads besides its inputs as links.

        Links name content, so they go into keys and files; paths are nobody else's business, and
        what lies there may be exchanged.

        Args:
            keep: from where a picture lies to its `store:` link.
        """
        del keep
        return self

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
    return _refused(first, where, f" (and {len(others)} more)" if others else "")


def refusals(
    error: ValidationError, where: str
) -> list[tuple[tuple[str | int, ...], PipelineError]]:
    """The same for each thing, with its place in what was refused."""
    return [(each["loc"], _refused(each, where, "")) for each in error.errors(include_url=False)]


def _refused(found: ErrorDetails, where: str, more: str) -> PipelineError:
    field = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        return MissingRequiredFieldError(
            f"{where}: field {field} is missing{more}", f"give {field} a value"
        )
    if found["type"] == "extra_forbidden":
        return ContractMismatchError(
            f"{where}: there is no field {field}{more}", f"remove {field} or correct its name"
        )
    expected = found["msg"].removeprefix("Value error, ")
    if not field:
        return InvalidFieldValueError(f"{where}: {expected}{more}", "correct the fields it names")
    return InvalidFieldValueError(
        f"{where}: field {field} is {shown(found['input'])}: {expected}{more}", f"correct {field}"
    )


def number_said(limit: float) -> str:
    """A limit as people write it: whole numbers with all their digits."""
    return str(limit) if isinstance(limit, int) else f"{limit:.15g}"


def shown(value: object) -> str:
    """A value as messages name it, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse_unkept(values: Mapping[str, object], where: str) -> None:
    """Refuse what a Prefect server cannot keep as parameters of a run, whatever its database.

    PostgreSQL takes neither the character NUL nor half a surrogate pair, and answers them like an
    outage.

    Args:
        values: JSON values by field.
        where: what the message calls it.

    Raises:
        InvalidFieldValueError: which field, and why.
    """
    for name, value in values.items():
        for path, text in _texts(name, value):
            at = _UNKEPT.search(text)
            if at is not None:
                raise InvalidFieldValueError(
                    f"{where}: field {path.encode('unicode_escape').decode()} has the character "
                    f"U+{ord(at[0]):04X} at {at.start() + 1}, which the server cannot keep",
                    f"remove it from {name.encode('unicode_escape').decode()}",
                )


def _texts(path: str, value: object) -> Iterator[tuple[str, str]]:
    """All text within a JSON value, names of fields too, each with its field."""
    waiting: list[tuple[str, object]] = [(path, path), (path, value)]
    while waiting:
        here, found = waiting.pop()
        if isinstance(found, str):
            yield here, found
        elif isinstance(found, Mapping):
            for key, inner in cast("Mapping[object, object]", found).items():
                waiting += [(here, str(key)), (f"{here}.{key}", inner)]
        elif isinstance(found, list | tuple):
            for number, inner in enumerate(cast("Sequence[object]", found)):
                waiting.append((f"{here}.{number}", inner))


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
