"""`safelight train`: LoRAs learnt from pictures, listed and compared."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from safelight.characters.gathering import gather
from safelight.characters.keeping import find
from safelight.characters.records import PREFIX
from safelight.characters.versions import list_versions
from safelight.cli.copies import Wanted
from safelight.cli.inputs import offered, parse_options
from safelight.cli.launching import JsonOption, NamesOption, OutputOption, reporting, run_flow
from safelight.cli.options import flow_words, of_flow
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.client.contracts import contract
from safelight.errors import InvalidFieldValueError, MissingFileError, one_line
from safelight.store.inputs import upload_local
from safelight.store.store import current_store

train = typer.Typer(no_args_is_help=True, help="LoRAs: learnt from pictures, listed, compared.")
FLOW, COMPARE = "train_lora", "compare_loras"


@train.command(
    "lora",
    cls=of_flow(FLOW, "dataset", "pictures", "captions"),
    help="Train a LoRA on the pictures of a folder, with captions from .txt files beside them, "
    "or on those of a character: --character NAME. Interrupted, it goes on from its last "
    "checkpoint when the same is asked again.",
)
@reporting
def lora(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="Of pictures, on this machine.")] = None,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a LoRA."""
    known = contract(FLOW)
    given = parse_options(flow_words(context), known.described)
    known.check(given, partly=True)
    if folder is not None:
        if "character" in given:
            raise InvalidFieldValueError(
                f"a folder and --character {given['character']} are given", "give one of them"
            )
        found = gather(folder.resolve())
        for each in found.left_aside:
            show_line(f"left aside: {one_line(each)}")
        given["pictures"] = [upload_local(path, ("image",)) for path, _ in found.pictures]
        given["captions"] = [text for _, text in found.pictures]
        current_store().settle()
    known.check(given)
    run_flow(FLOW, given, Wanted(output, names), as_json=as_json)


@train.command("list", help="All versions of a LoRA or character, the oldest first.")
@reporting
def list_trained(
    name: Annotated[str, typer.Argument(help="Of the LoRA, or of a character.")],
    as_json: JsonOption = False,
) -> None:
    """All versions of a name."""
    found = list_versions(trained_name(name))
    if as_json:
        show_json([one.model_dump(mode="json") for one in found])
        return
    rows = [
        (
            f"v{one.version}",
            one.model,
            str(one.config.get("model", "")),
            str(_training(one.config).get("max_train_steps", "")),
            str(_training(one.config).get("network_dim", "")),
            one.sha256[:12],
        )
        for one in found
    ]
    show_rows(("version", "LoRA", "model", "steps", "rank", "sha256"), rows)


@train.command(
    "compare",
    cls=of_flow(COMPARE, "name", "versions"),
    help="Draw the same prompts by several versions, and say which is nearer to the pictures.",
)
@reporting
def compare(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the LoRA, or of a character.")],
    versions: Annotated[list[str], typer.Argument(help="For instance v1 v2.")],
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare versions."""
    known = contract(COMPARE)
    given = parse_options(flow_words(context), known.described)
    given |= offered(name=trained_name(name), versions=[*versions])
    known.check(given)
    run_flow(COMPARE, given, Wanted(output, names), as_json=as_json)


def trained_name(named: str) -> str:
    """The name that trainings of it have: a character's id."""
    if not current_store().backend.list(f"{PREFIX}/"):
        return named
    try:
        return find(named).id
    except MissingFileError:
        return named


def _training(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    found = config.get("training")
    return found if isinstance(found, dict) else {}
