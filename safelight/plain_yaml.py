"""YAML that people bring, as far as JSON can say the same."""

import json
from typing import Any

import yaml

from safelight.errors import InvalidFieldValueError

_PLAIN = {
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
}
_BOOLEANS = {"true", "false"}


class PlainLoader(yaml.SafeLoader):
    """YAML as far as JSON can say it: no aliases, which a small file makes a huge one with, no
    dates, nothing given twice, and `on` is a word."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1} is an alias")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401
        """Refuse what is given twice, and names that are none."""
        names = [key.value for key, _ in node.value]
        for (key, _), name in zip(node.value, names, strict=True):
            if not isinstance(name, str) or names.count(name) > 1 or name == "<<":
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {str(name)[:80]!r} is given twice or no name")
        made = super().construct_mapping(node, deep=True)
        return {str(name): made[key] for name, key in zip(names, list(made), strict=True)}


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in _PLAIN]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _boolean(loader: PlainLoader, node: yaml.ScalarNode) -> bool | str:
    text = str(loader.construct_scalar(node))
    return text.lower() == "true" if text.lower() in _BOOLEANS else text


PlainLoader.add_constructor("tag:yaml.org,2002:bool", _boolean)


def plain_yaml(data: bytes, where: str) -> object:
    """What YAML of strangers says.

    Args:
        data: of a size that was looked at: what is read takes time and memory by it.
        where: what messages call it.

    Raises:
        InvalidFieldValueError: it is no YAML, or says what JSON could not.
    """
    try:
        found: object = yaml.load(data, Loader=PlainLoader)
        json.dumps(found, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        told, place = " ".join(str(error).split())[:200], where
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        if isinstance(error, yaml.MarkedYAMLError) and mark is not None:
            told = f"{error.problem} at character {mark.column + 1}"
            place = f"{where}:{mark.line + 1}"
        raise InvalidFieldValueError(
            f"{place} is not YAML that JSON could say: {told}", f"correct {where}"
        ) from error
    return found
