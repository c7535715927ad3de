"""A prompt a line, with `--option value` after it, as AUTOMATIC1111's users keep them.

Its script "Prompts from file or textbox" takes a line that holds `--prompt "..."` and other options
of this kind. Here the prompt may also stand bare before them, and parameters have their own names
besides those that its web API has.
"""

import re
from collections.abc import Collection, Iterator

from flows.batching.reading.columns import plain, unknown
from flows.batching.reading.rows import BadRequestError, Row
from flows.batching.reading.tables import lines_of
from safelight.errors import ContractMismatchError
from safelight.provenance.parameters_text import our_scheduler

THEIRS = {
    "cfg_scale": "guidance_scale",
    "sd_model": "model",
    "sampler_name": "scheduler",
    "sampler_index": "scheduler",
    "sampler": "scheduler",
    "n_iter": "num_images",
    "batch_size": "num_images",
}
"""Names of that web UI to ours."""
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)(?==|\s|$)")
_QUOTED = re.compile(r'"[^"]*"')
PROMPT = "prompt"


def prompt_rows(text: str, names: Collection[str]) -> Iterator[Row]:
    """A request for each line that is not empty.

    Args:
        text: of the file.
        names: of the parameters that there are.

    Raises:
        ContractMismatchError: an option names no parameter, or the flow takes no prompt.
        BadRequestError: an option is there twice, or has no value.
    """
    if PROMPT not in names:
        raise ContractMismatchError(
            "the file holds a text a line, and the flow takes no prompt",
            f"write a table whose header names what it takes: {', '.join(names)}",
        )
    for number, line in lines_of(text):
        if line.strip():
            yield Row(f"line {number}", _values(line, f"line {number}", names), text=True)


def _values(line: str, where: str, names: Collection[str]) -> dict[str, str]:
    # what stands in quotes is no option; the masked line is as long as the line
    masked = _QUOTED.sub(lambda found: "x" * len(found[0]), line)
    options = list(_OPTION.finditer(masked))
    ends = [option.start() for option in options[1:]] + [len(line)] * bool(options)
    bare = line[: options[0].start()] if options else line
    values = {PROMPT: bare.strip()} if bare.strip() else {}
    for option, end in zip(options, ends, strict=True):
        name = _parameter(option[1], where, names)
        value = _unquoted(line[option.end() : end].strip().removeprefix("=").strip())
        if name in values:
            raise BadRequestError(f"{where}: {name} is given twice", f"keep one {name} in {where}")
        if not value:
            raise BadRequestError(
                f"{where}: --{option[1]} has no value", f"write --{option[1]} VALUE in {where}"
            )
        values[name] = our_scheduler(value) if name == "scheduler" else value
    return values


def _parameter(option: str, where: str, names: Collection[str]) -> str:
    for name in (plain(option), THEIRS.get(plain(option))):
        if name is not None and name in names:
            return name
    raise unknown(f"{where}: option", f"--{option}", names)


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
