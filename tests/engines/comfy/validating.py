"""What ComfyUI has against a workflow: inputs, links, choices and limits, as its nodes say."""

from collections.abc import Iterator, Mapping
from typing import Any

from safelight.engines.comfy.checking import UPLOADED
from safelight.engines.object_info import choices_of, inputs_of, is_optional, options_of

Told = Mapping[str, Mapping[str, Any]]


def refusal_of(prompt: Mapping[str, Any], nodes: Told) -> dict[str, Any] | None:
    """Its answer to a workflow that it does not run; None where it runs it.

    Args:
        prompt: the nodes, by their ids, all of types that it has.
        nodes: what it says of its types of node.
    """
    wrong: dict[str, Any] = {}
    for name, node in prompt.items():
        errors = list(_errors(node, prompt, nodes))
        if errors:
            wrong[name] = {"errors": errors, "class_type": node["class_type"]}
    if not wrong:
        return None
    failed = "Prompt outputs failed validation"
    error = {"type": "prompt_outputs_failed_validation", "message": failed, "details": ""}
    return {"error": error, "node_errors": wrong}


def _errors(node: Mapping[str, Any], prompt: Mapping[str, Any], nodes: Told) -> Iterator[Any]:
    told = nodes[node["class_type"]]
    for name, config in inputs_of(told):
        value = node["inputs"].get(name)
        if value is None:
            if not is_optional(told, name):
                yield _error("required_input_missing", name, name, config, value)
        elif isinstance(value, list):
            source, output = value
            given = nodes[prompt[source]["class_type"]]["output"][output]
            if given != config[0]:
                said = f"{name}, received_type({given}) mismatch input_type({config[0]})"
                yield _error("return_type_mismatch", name, said, config, value)
        else:
            yield from _wrong_value(name, config, value)


def _wrong_value(name: str, config: list[Any], value: Any) -> Iterator[Any]:
    choices, limits = choices_of(config), options_of(config)
    if choices is not None:
        if value not in choices and not any(map(limits.get, UPLOADED)):
            said = f"{name}: {value!r} not in {choices}"
            yield _error("value_not_in_list", name, said, config, value)
    elif config[0] not in ("INT", "FLOAT", "STRING", "BOOLEAN"):
        yield _error("bad_linked_input", name, f"{name}, {value!r}", config, value)
    elif value < limits.get("min", value):
        yield _error("value_smaller_than_min", name, name, config, value)
    elif value > limits.get("max", value):
        yield _error("value_bigger_than_max", name, name, config, value)


def _error(kind: str, name: str, details: str, config: list[Any], value: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "message": kind.replace("_", " ").capitalize(),
        "details": details,
        "extra_info": {"input_name": name, "input_config": config, "received_value": value},
    }
