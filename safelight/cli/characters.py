"""`safelight characters`: who and what is drawn again and again."""

from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from safelight.characters import keeping
from safelight.characters.forgetting import delete as forget
from safelight.characters.forgetting import tombstones
from safelight.characters.packing import export_character, import_character
from safelight.characters.records import Character, Kind
from safelight.characters.versions import list_versions
from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.errors import one_line
from safelight.provenance.consent import STATEMENT

characters = typer.Typer(
    no_args_is_help=True, help="Characters: their pictures, consent, word and LoRAs."
)
NameArgument = Annotated[str, typer.Argument(help="Name or id.")]
ConsentOption = Annotated[bool, typer.Option("--consent-given", help=STATEMENT)]
ByOption = Annotated[
    str | None, typer.Option("--consent-by", help="Who says so; else this account.")
]


@characters.command("create", help="Make a character; a person has to agree.")
@reporting
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    kind: Annotated[str, typer.Option(help="person or thing.")] = "person",
    style: Annotated[str, typer.Option(help="Added to prompts that show it.")] = "",
    trigger: Annotated[str | None, typer.Option(help="The word for it; else one is made.")] = None,
    consent_given: ConsentOption = False,
    consent_by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a character."""
    made = keeping.create(
        name,
        kind=cast("Kind", kind),
        style=style,
        trigger=trigger,
        consent_given=consent_given,
        consent_by=consent_by,
    )
    _say(made, as_json=as_json)


@characters.command("add", help="Add reference pictures: sharp, large, one face, none twice.")
@reporting
def add(
    name: NameArgument,
    files: Annotated[list[Path], typer.Argument(help="Pictures on this machine.")],
    consent_given: ConsentOption = False,
    consent_by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add pictures."""
    for file in files:
        picture = keeping.add_picture(
            name, file, consent_given=consent_given, consent_by=consent_by
        )
        if not as_json:
            show_line(one_line(f"{file.name}: {picture.sha256[:12]}"))
    if as_json:
        _say(keeping.find(name), as_json=True)


@characters.command("list", help="All characters, by name.")
@reporting
def list_characters(as_json: JsonOption = False) -> None:
    """All characters."""
    found = keeping.list_all()
    if as_json:
        show_json([_facts(one) for one in found])
        return
    rows = [
        (one_line(o.name), o.id, o.kind, one_line(o.trigger), str(len(o.pictures))) for o in found
    ]
    show_rows(("name", "id", "kind", "word", "pictures"), rows)


@characters.command("show", help="All that is known about one.")
@reporting
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """One character."""
    _say(keeping.find(name), as_json=as_json)


@characters.command("update", help="Change name, style or word.")
@reporting
def update(
    name: NameArgument,
    rename: Annotated[str | None, typer.Option(help="The new name.")] = None,
    style: Annotated[str | None, typer.Option(help="Added to prompts that show it.")] = None,
    trigger: Annotated[str | None, typer.Option(help="The word for it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a character."""
    _say(keeping.update(name, name=rename, style=style, trigger=trigger), as_json=as_json)


@characters.command("remove", help="Take a picture away.")
@reporting
def remove(
    name: NameArgument,
    sha256: Annotated[str, typer.Argument(help="How its sha256 begins.")],
    as_json: JsonOption = False,
) -> None:
    """Take a picture away."""
    _say(keeping.remove_picture(name, sha256), as_json=as_json)


@characters.command(
    "delete",
    help="Remove a character with its pictures, its LoRAs and all that was made with them. What "
    "is left says who asked.",
)
@reporting
def delete(
    name: NameArgument,
    by: Annotated[str | None, typer.Option(help="Who asks for it; else this account.")] = None,
    reason: Annotated[str, typer.Option(help="In their words.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a character."""
    told = forget(name, by=by, reason=reason)
    if as_json:
        show_json(told.model_dump(mode="json"))
        return
    show_line(
        one_line(
            f"{told.id} is deleted for {told.by}: {told.pictures} pictures, {told.loras} LoRAs, "
            f"{told.files} files"
        )
    )


@characters.command("deleted", help="Which were deleted, when, and who asked.")
@reporting
def deleted(as_json: JsonOption = False) -> None:
    """All that were deleted."""
    found = tombstones()
    if as_json:
        show_json([one.model_dump(mode="json") for one in found])
        return
    rows = [(one.id, one.when, one_line(one.by), one_line(one.reason)) for one in found]
    show_rows(("id", "when", "who asked", "reason"), rows)


@characters.command("export", help="Write a character into one file, LoRAs too.")
@reporting
def export(
    name: NameArgument, file: Annotated[Path, typer.Argument(help="A new file, .zip.")]
) -> None:
    """Export a character."""
    made = export_character(name, file)
    show_line(one_line(f"{made.id} is in {file}"))


@characters.command("import", help="Take a character from an exported file.")
@reporting
def import_(
    file: Annotated[Path, typer.Argument(help="As export wrote it.")], as_json: JsonOption = False
) -> None:
    """Import a character."""
    _say(import_character(file), as_json=as_json)


def _say(character: Character, *, as_json: bool) -> None:
    if as_json:
        show_json(_facts(character))
        return
    for field in ("id", "name", "kind", "trigger", "style", "created", "updated"):
        value = getattr(character, field)
        if value:
            show_line(one_line(f"{field}: {value}"))
    if character.consent is not None:
        show_line(one_line(f"consent: {character.consent.who} at {character.consent.when}"))
    for picture in character.pictures:
        size = f"{picture.width}x{picture.height}"
        agreed = f", {picture.consent.who} agreed" if picture.consent is not None else ""
        show_line(one_line(f"picture: {picture.sha256[:12]} {size}{agreed}"))
    for version in list_versions(character.id):
        show_line(f"LoRA: {version.model}, sha256 {version.sha256[:12]}")


def _facts(character: Character) -> dict[str, JsonValue]:
    loras = [one.model for one in list_versions(character.id)]
    return {**character.model_dump(mode="json"), "loras": [*loras]}
