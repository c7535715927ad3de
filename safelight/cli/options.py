"""Commands whose options are the parameters of a flow: they are parsed, checked and listed here."""

from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from safelight.cli.inputs import is_switch, parameter, takes_next
from safelight.cli.pipeline_files import is_file, read_pipeline
from safelight.cli.printing import CONSOLE
from safelight.client.catalog import catalog, pipelines
from safelight.client.contracts import Described, contract, described, kinds, option
from safelight.errors import PipelineError
from safelight.params import number_said
from safelight.workflows.files import flow_of, names

WORDS = "safelight.words"
"""Key of the context's `meta` under which the flow's own options wait for `flow_words`."""


class FlowCommand(TyperCommand):
    """Takes the options of a flow out of the words, and lists them in its help.

    Click knows only what is the same for all flows: arguments, `--output`, `--json`.
    """

    flow: ClassVar[str | None] = None
    """Whose parameters they are; None where an argument tells."""
    positional: ClassVar[tuple[str, ...]] = ()
    """Parameters that are arguments, not options."""

    def subject(self, args: list[str]) -> tuple[str, Described]:
        """The name of what runs and its parameters, empty where the words name nothing."""
        del args
        if self.flow is None:
            return "", {}
        known = contract(self.flow).described
        return self.flow, {
            name: part for name, part in known.items() if name not in self.positional
        }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Leave to click what it knows."""
        ctx.meta["safelight.args"] = list(args)
        own = {
            name: not getattr(param, "is_flag", False)
            for param in self.get_params(ctx)
            for name in (*param.opts, *param.secondary_opts)
        }
        try:
            _, known = self.subject(args)
        except PipelineError:  # the command itself says so, with its code
            known: Described = {}
        left: list[str] = []
        taken: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            name = word.partition("=")[0]
            if word == "--":
                left += [word, *rest]
                break
            if name in own or not word.startswith("--"):
                left.append(word)
                if own.get(word, False) and rest:
                    left.append(rest.pop(0))
                continue
            taken.append(word)
            if "=" not in word and takes_next(rest, known.get(parameter(name[2:]), {})):
                taken.append(rest.pop(0))
        ctx.meta[WORDS] = taken
        return super().parse_args(ctx, left)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """The command's own help, then the inputs."""
        super().format_help(ctx, formatter)
        try:
            name, known = self.subject(ctx.meta.get("safelight.args", []))
        except PipelineError as error:
            CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
            return
        if known:
            show_inputs(name, known)


class WorkflowCommand(FlowCommand):
    """`workflow run`: the parameters are those that the named workflow's form shows."""

    def subject(self, args: list[str]) -> tuple[str, Described]:
        """The first word, when it is a workflow."""
        name = next((word for word in args if not word.startswith("-")), "")
        return (name, contract(flow_of(name)).described) if name in names() else ("", {})


class BatchCommand(FlowCommand):
    """`batch`: the parameters are those of the flow that each request runs."""

    def subject(self, args: list[str]) -> tuple[str, Described]:
        """What follows `--flow`."""
        for word, after in zip(args, [*args[1:], ""], strict=True):
            if word == "--flow" or word.startswith("--flow="):
                name = after if word == "--flow" else word.partition("=")[2]
                return name, contract(name).described
        return "", {}


class NamedFlowCommand(FlowCommand):
    """`run` and `grid`: the parameters are those of the flow that a word names."""

    def subject(self, args: list[str]) -> tuple[str, Described]:
        """The first word that is a preset, else the first that is no option."""
        ids = catalog().preset_ids()
        found = next((word for word in args if word in ids), None)
        name = found or next((word for word in args if not word.startswith("-")), "")
        return (name, contract(name).described) if name else ("", {})


class PipelineCommand(FlowCommand):
    """`pipeline`: the parameters are those of the stages in the file."""

    def subject(self, args: list[str]) -> tuple[str, Described]:
        """The first word that is a file."""
        found = next((word for word in args if not word.startswith("-") and is_file(word)), None)
        return (found, pipeline_options(read_pipeline(Path(found)))) if found else ("", {})


def of_flow(name: str, *positional: str) -> type[FlowCommand]:
    """The class of a command that runs one flow.

    Args:
        name: of the flow.
        positional: its parameters that the command takes as arguments.
    """

    class Command(FlowCommand):
        flow = name

    Command.positional = positional
    return Command


def flow_words(context: typer.Context) -> list[str]:
    """The words that `FlowCommand` kept for the flow."""
    return context.meta.get(WORDS, [])


def pipeline_options(pipeline: dict[str, Any]) -> Described:
    """The options of a pipeline: media, fields of any stage, and fields of one as `stage.field`."""
    text = {"type": "string", "required": False}
    media = {
        "image": {**text, "description": "Picture for the first stage that reads one."},
        "mask": {**text, "description": "Its white part is repainted."},
        "video": {**text, "description": "Video for the first stage that reads one."},
        "audio": {**text, "description": "Sound."},
    }
    found: dict[str, Any] = {**media}
    for stage, schema in pipelines().pipeline_schemas(pipeline).items():
        for name, part in described(schema).items():
            optional = {**part, "required": False}
            found.setdefault(name, optional)
            found[f"{stage}.{name}"] = optional
    return found


def show_inputs(title: str, known: Described) -> None:
    """One line an input with type, limits and default, and its text below."""
    _line(f"Inputs of {title}:")
    for name, part in known.items():
        facts = ", ".join(_facts(part))
        _line(f"  {option(name)} {_type(part)}".rstrip() + (f"  {facts}" if facts else ""))
        if part.get("description"):
            _line(f"      {' '.join(str(part['description']).split())}")


def _line(text: str) -> None:
    CONSOLE.print(text, markup=False, highlight=False, soft_wrap=True)


def _type(part: Any) -> str:  # noqa: ANN401
    if is_switch(part):
        return ""
    names = {"integer": "INTEGER", "number": "NUMBER", "string": "TEXT", "boolean": "true|false"}
    found: list[str] = []
    for kind in kinds(part):
        if "enum" in kind:
            found.append("|".join(str(value) for value in kind["enum"]))
        elif "const" in kind:
            found.append(str(kind["const"]))
        else:
            found.append(names.get(str(kind.get("type")), "JSON"))
    return " or ".join(dict.fromkeys(found))


def _facts(part: Any) -> list[str]:  # noqa: ANN401
    facts: list[str] = ["required"] if part.get("required") else []
    for kind in kinds(part):
        low, high = kind.get("minimum"), kind.get("maximum")
        above, below = kind.get("exclusiveMinimum"), kind.get("exclusiveMaximum")
        if low is not None and high is not None:
            facts.append(f"{number_said(low)} to {number_said(high)}")
        else:
            facts += [f"at least {number_said(low)}"] if low is not None else []
            facts += [f"at most {number_said(high)}"] if high is not None else []
        facts += [f"above {number_said(above)}"] if above is not None else []
        facts += [f"below {number_said(below)}"] if below is not None else []
        if "multipleOf" in kind:
            facts.append(f"a multiple of {number_said(kind['multipleOf'])}")
        if "maxLength" in kind:
            facts.append(f"{kind.get('minLength', 0)} to {kind['maxLength']} characters")
    default = part.get("default")
    if not part.get("required") and default is not None and default != {}:
        facts.append(f"default {str(default).lower() if is_switch(part) else default}")
    return facts
