"""What a person can do about a failed job by one press: what its remedy says, done for them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.gateway.jobs import Job
from safelight.gateway.page.forms import Field, Form, form_of
from safelight.gateway.page.reading import read, typed
from safelight.gateway.page.shelf import levels_of
from safelight.gateway.page.words import label, say
from safelight.gateway.workflows import contract_of

AGAIN = frozenset(
    {
        "ENGINE_OFFLINE", "ENGINE_TIMEOUT", "RATE_LIMIT_EXCEEDED", "STORE_UNAVAILABLE",
        "DOWNLOAD_FAILED", "DISK_FULL", "CHECKSUM_MISMATCH", "UNKNOWN_ERROR",
        "INSUFFICIENT_FUNDS", "AUTH_MISSING", "AUTH_INVALID",
    }
)  # fmt: skip
"""Codes after which the same may work later: what is wrong lies outside of the request."""
LINKS = {
    "DEPENDENCY_MISSING": ("/models", "remedy.models"),
    "ENGINE_OFFLINE": ("/system", "remedy.system"),
    "ENGINE_TIMEOUT": ("/system", "remedy.system"),
    "DISK_FULL": ("/system", "remedy.system"),
    "STORE_UNAVAILABLE": ("/system", "remedy.system"),
    "INSUFFICIENT_FUNDS": ("/system", "remedy.system"),
    "AUTH_MISSING": ("/system", "remedy.system"),
    "AUTH_INVALID": ("/system", "remedy.system"),
}
"""Rooms that show what is wrong."""
OWN_ACT = ("consent_given", "consent_by")
"""What a person says themselves; no button says it for them."""
_SET = re.compile(r"\b(?:set|and) ([a-z][\w.]*) to (-?[\w.]*\w)")
SMALLEST = 64
"""Pixels; a side is halved down to this."""


@dataclass(frozen=True)
class Remedy:
    """One button: the same job with some fields changed."""

    key: str
    """Names it in the request."""
    said: str
    """On the button."""
    changes: dict[str, str]
    """Text by the names of fields; empty takes what was given away."""


@dataclass(frozen=True)
class WaysOut:
    """What to do about a failure, the best first."""

    again: bool
    """Whether trying the very same again may help."""
    remedies: list[Remedy]
    link: str
    """A room that shows what is wrong; empty where none does."""
    link_said: str


def ways_out(job: Job) -> WaysOut | None:
    """What can be done; None where a job has not failed."""
    if job.error is None:
        return None
    link, said = LINKS.get(job.error.code, ("", ""))
    return WaysOut(job.error.code in AGAIN, remedies_of(job), link, say(said) if said else "")


def remedies_of(job: Job) -> list[Remedy]:
    """Changes with which a failed job may work, each of which its form accepts."""
    if job.error is None:
        return []
    form = _form(job, {})
    found = {each.key: each for each in _thought_of(job, form)}
    return [each for each in found.values() if not read(_form(job, each.changes))[1]]


def with_remedy(job: Job, key: str) -> dict[str, JsonValue]:
    """The parameters of a job as one of its remedies changes them.

    Raises:
        InvalidFieldValueError: it has no such remedy.
    """
    there = {each.key: each for each in remedies_of(job)}
    if key not in there:
        raise InvalidFieldValueError(
            f"remedy is {key[:80]!r}, expected one of {', '.join(there) or 'none'}",
            "load the page again",
        )
    parameters, _ = read(_form(job, there[key].changes))
    return parameters


def _form(job: Job, changes: dict[str, str]) -> Form:
    described = contract_of(job.workflow).described
    given = typed(job.parameters, described) | changes
    return form_of(job.workflow, described, given, levels_of(job.workflow))


def _thought_of(job: Job, form: Form) -> Iterator[Remedy]:
    assert job.error is not None
    told = {
        field.name: value
        for name, value in _SET.findall(job.error.remedy)
        if (field := _named(form, name)) is not None and field.name not in OWN_ACT
    }
    if told:
        yield Remedy("told", say("remedy.with", changes=_said(told)), told)
    if job.error.code == "OUT_OF_MEMORY":
        yield from _smaller(form)
    model = _named(form, "model")
    if job.error.code == "DEPENDENCY_MISSING" and model is not None and model.value:
        yield Remedy("own_model", say("remedy.own_model"), {model.name: ""})


def _smaller(form: Form) -> Iterator[Remedy]:
    sides = [_named(form, "width"), _named(form, "height")]
    halved = {f.name: half for f in sides if f is not None and (half := _half(f))}
    if len(halved) == 2:
        yield Remedy("smaller", say("remedy.smaller", size=" x ".join(halved.values())), halved)
    count = form.by_name.get("num_images")
    if count is not None and count.shown not in ("", "1"):
        yield Remedy("one", say("remedy.one"), {count.name: "1"})
    tile = _named(form, "tile")
    if tile is not None and (half := _half(tile)):
        yield Remedy("tiles", say("remedy.tiles", size=half), {tile.name: half})
    quality = next((q for n in ("quality", "quality_preset") if (q := form.by_name.get(n))), None)
    names = [option.value for option in quality.options] if quality else []
    if quality is not None and quality.shown in names[1:]:
        lower = names[names.index(quality.shown) - 1]
        said = say("remedy.with", changes=_said({quality.name: lower}))
        yield Remedy("lower", said, {quality.name: lower})


def _named(form: Form, name: str) -> Field | None:
    """A field by its name, or by what it is called within the step of a preset."""
    known = form.by_name
    for full in (name, f"overrides.{name}"):
        if full in known:
            return known[full]
    if "." in name:
        return _named(form, name.rpartition(".")[2])
    return next((each for each in known.values() if each.name.endswith(f".{name}")), None)


def _half(one: Field) -> str:
    """Half of a number of pixels; empty where there is none that may be."""
    if not one.shown.isdigit():
        return ""
    half = int(one.shown) // 2 // SMALLEST * SMALLEST
    return str(half) if half >= max(SMALLEST, one.low or 0) else ""


def _said(changes: dict[str, str]) -> str:
    return ", ".join(f"{label(name).lower()} {value}" for name, value in changes.items())
