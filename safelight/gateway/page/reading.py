"""What a form says: text as a person typed it, read into parameters in one place.

So a number keeps all its digits on the way, and what is wrong is said in the person's own words.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from pydantic import JsonValue

from safelight.client.contracts import Described
from safelight.gateway.page.forms import Field, Form, plain, text_of
from safelight.gateway.page.words import say


def typed(parameters: Mapping[str, JsonValue], described: Described) -> dict[str, str]:
    """Parameters of a job as the text of its form."""
    told: dict[str, str] = {}
    for name, value in parameters.items():
        if name == "overrides" and isinstance(value, dict):
            for step, values in value.items():
                inner = values if isinstance(values, dict) else {}
                told |= {f"overrides.{step}.{key}": text_of(each) for key, each in inner.items()}
        elif name in described and value != described[name].get("default"):
            told[name] = text_of(value)
    return told


def read(form: Form) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """The parameters that a form says, and what is wrong with it by the names of fields."""
    parameters: dict[str, JsonValue] = {}
    wrong: dict[str, str] = {}
    for each in form.fields:
        if not each.value:
            if each.required:
                wrong[each.name] = say("wrong.missing")
            continue
        value, said = read_field(each)
        if said:
            wrong[each.name] = said
        elif each.value != each.default:
            _put(parameters, each.name, value)
    return parameters, wrong


def _put(parameters: dict[str, JsonValue], name: str, value: JsonValue) -> None:
    *outer, last = name.split(".")
    place = parameters
    for part in outer:
        place = cast("dict[str, JsonValue]", place.setdefault(part, {}))
    place[last] = value


def read_field(one: Field) -> tuple[JsonValue, str]:
    """The value that a field says, or what is wrong with it."""
    text = one.value
    if one.kind in ("number", "seed"):
        return _number(one)
    if one.kind == "switch" or {o.value for o in one.options} == {"true", "false"}:
        return text == "true", ""
    if one.kind == "file":
        return (cast("list[JsonValue]", one.files) if one.many else text), ""
    if one.kind == "words":
        return [word.strip() for word in text.split(",") if word.strip()], ""
    if one.kind in ("json", "loras"):
        try:
            return json.loads(text), ""
        except ValueError as error:
            return None, say("wrong.json", why=str(error))
    if one.longest is not None and len(text) > one.longest:
        return text, say("wrong.long", count=len(text), most=one.longest)
    return text, ""


def _number(one: Field) -> tuple[JsonValue, str]:
    text = one.value.strip().replace(",", ".") if not one.whole else one.value.strip()
    try:
        number: int | float = int(text) if one.whole or one.kind == "seed" else float(text)
    except ValueError:
        return None, say("wrong.whole" if one.whole else "wrong.number", found=one.value[:40])
    if not math.isfinite(number):
        return None, say("wrong.number", found=one.value[:40])
    low, high = one.low, one.high
    if low is not None and number < low:
        said = say("wrong.below", found=text, limit=plain(low))
    elif high is not None and number > high:
        said = say("wrong.above", found=text, limit=plain(high))
    elif one.step and number % one.step:
        below = number // one.step * one.step
        near = (plain(below), plain(below + one.step))
        return number, say(
            "wrong.step", found=text, step=plain(one.step), low=near[0], high=near[1]
        )
    else:
        return number, ""
    if low is not None and high is not None:
        said += f" {say('wrong.take', low=plain(low), high=plain(high))}"
    return number, said


def with_errors(form: Form, wrong: Mapping[str, str]) -> Form:
    """The form with what is wrong beside its fields."""

    def marked(fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(replace(each, error=wrong.get(each.name, "")) for each in fields)

    groups = tuple(replace(group, fields=marked(group.fields)) for group in form.groups)
    return replace(form, sight=marked(form.sight), groups=groups)
