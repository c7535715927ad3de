"""The commands about models: what is there, what of it is whole, and what can be fetched."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import JsonValue
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from safelight.cli.printing import CONSOLE, show_json, show_line, show_rows
from safelight.errors import InvalidFieldValueError, PipelineError, one_line
from safelight.settings import settings
from safelight.store.s3 import Bucket
from safelight.weights.cards import cards
from safelight.weights.catalog import Wanted, get_model
from safelight.weights.fetching import OnBytes
from safelight.weights.kinds import ModelType, model_type
from safelight.weights.licences import remark
from safelight.weights.registry import ModelInfo, registry
from safelight.weights.verifying import Verified, verified

GIB, MIB = 2**30, 2**20
LINK_SECONDS = 24 * 3600
"""How long a signed address of S3 has to last for one file."""
PURPOSES = {
    "SR": "enlarges",
    "FaceSR": "restores faces",
    "Restoration": "cleans pictures and keeps their size",
    "Inpainting": "fills holes",
}
"""As spandrel calls them, and for people."""
MOST_SKIPPED = 20
"""Lines about what was left out."""

models = typer.Typer(no_args_is_help=True, help="Models: found by name, fetched and looked into.")

JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", help="checkpoint, lora, embedding, vae, controlnet, ...")
]
NameArgument = Annotated[str, typer.Argument(help="As `safelight models list` shows it.")]


@models.command("scan", help="Look for models below a folder; what did not change is not read.")
def scan(
    folder: Annotated[Path | None, typer.Argument(help="Without it, the models folder.")] = None,
    hashes: Annotated[bool, typer.Option(help="Compute the sha256 of what is new.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Look for models."""
    found = registry().scan(folder, hashes=hashes)
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    show_line(
        f"{found.models} models in {found.directory}: {found.new} new, {found.changed} changed, "
        f"{found.gone} gone, {found.hashed} hashed"
    )
    for path, why in found.skipped[:MOST_SKIPPED]:
        show_line(f"left out: {one_line(path)}: {one_line(why)}")
    if len(found.skipped) > MOST_SKIPPED:
        show_line(f"and {len(found.skipped) - MOST_SKIPPED} more; --json names all")


@models.command("list", help="All models that are known, by name.")
def list_models(type_: TypeOption = None, as_json: JsonOption = False) -> None:
    """All models."""
    found = registry().list_models(type_)
    if as_json:
        show_json([_facts(info) for info in found])
        return
    rows = [
        (
            one_line(info.name),
            info.model_type,
            info.base_model or "",
            _size(info.file_size_bytes),
            one_line(info.licence or ""),
            "problem" if info.metadata.get("problem") else "",
        )
        for info in found
    ]
    show_rows(("name", "type", "base model", "size", "licence", ""), rows)


@models.command("show", help="All that is known about one model.")
def show(name: NameArgument, type_: TypeOption = None, as_json: JsonOption = False) -> None:
    """One model."""
    known = registry()
    info = known.get_model(name, type_)
    taken = known.acknowledgements(info.sha256) if info.sha256 else []
    network = _network(info)
    if as_json:
        show_json(
            {
                **_facts(info),
                "acknowledgements": cast("JsonValue", taken),
                **({"network": network} if network else {}),
            }
        )
        return
    for field, value in {**_facts(info), **info.metadata, **network}.items():
        if field != "metadata" and value not in (None, "", [], {}):
            said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            show_line(f"{field}: {one_line(said)}")
    said = remark(info.name, info.licence)
    if said is not None:
        show_line(f"note: {one_line(said)}")
    for each in taken:
        show_line(one_line(f"taken in spite of {each['code']} by {each['who']} at {each['at']}"))


@models.command("add", help="Register a file or folder, or say more about one that is known.")
def add(
    file: Annotated[Path, typer.Argument(help="A weights file, or a diffusers folder.")],
    name: Annotated[str | None, typer.Option(help="To call it by; else its stem.")] = None,
    type_: TypeOption = None,
    description: Annotated[str | None, typer.Option(help="What it is good at.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    licence: Annotated[str | None, typer.Option(help="As its makers name it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model."""
    info = registry().register_model(
        file, type_, name=name, description=description, tags=tag or (), licence=licence
    )
    if as_json:
        show_json(_facts(info))
    else:
        show_line(one_line(f"{info.name} ({info.model_type}) is {info.file_path}"))


@models.command("remove", help="Forget a model and what was said of it; its file stays.")
def remove(name: NameArgument, type_: TypeOption = None, as_json: JsonOption = False) -> None:
    """Forget a model."""
    known = registry()
    info = known.get_model(name, type_)
    removed = known.remove_model(info.name, info.model_type)
    if as_json:
        show_json({"removed": removed, "name": info.name})
    else:
        show_line(one_line(f"{info.name} is forgotten; its file stays: {info.file_path}"))


@models.command("verify", help="Read models whole: same sha256, not damaged, no code in them.")
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Without any, all.")] = None,
    type_: TypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read models whole."""
    known = registry()
    chosen = [known.get_model(n, type_) for n in names] if names else known.list_models(type_)
    found: list[Verified] = []
    for info in chosen:
        one = verified(info)
        found.append(one)
        if not as_json:
            show_line(one_line(f"{info.name}: {one.found}"))
    if as_json:
        show_json([one.model_dump(mode="json") for one in found])
    if not all(one.ok for one in found):
        raise typer.Exit(1)


@models.command("catalog", help="What `safelight models get` fetches by name.")
def catalog(as_json: JsonOption = False) -> None:
    """All cards."""
    known = cards()
    if as_json:
        show_json([card.model_dump(mode="json") for card in known.values()])
        return
    rows = [
        (card.name, card.model_type, card.base_model or "", _size(card.size), card.licence)
        for card in known.values()
    ]
    show_rows(("name", "type", "base model", "size", "licence"), rows)


@models.command(
    "get",
    help="Fetch a model: by its name in the catalog, or from https://..., s3://BUCKET/KEY, "
    "hf:OWNER/NAME/FILE or civitai:VERSION. It goes on where it stopped.",
)
def get(
    what: Annotated[str, typer.Argument(help="Name or address.")],
    name: Annotated[str | None, typer.Option(help="To call it by; else its own.")] = None,
    type_: TypeOption = None,
    sha256: Annotated[str | None, typer.Option(help="That the file must have.")] = None,
    licence: Annotated[str | None, typer.Option(help="Where its source names none.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Take it though no licence is known.")
    ] = False,
    accept_unchecked: Annotated[
        bool, typer.Option("--accept-unchecked", help="Take it though no sha256 is known.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model."""
    wanted = Wanted(
        what,
        name=name,
        model_type=None if type_ is None else model_type(type_),
        sha256=sha256,
        licence=licence,
        accept_licence=accept_licence,
        accept_unchecked=accept_unchecked,
    )
    with _bar(quiet=as_json) as on_bytes:
        done = get_model(wanted, _s3_link, on_bytes)
    said = remark(done.info.name, done.info.licence)
    if as_json:
        facts = {**_facts(done.info), "fetched": done.fetched, "remark": said}
        show_json({**facts, "acknowledged": list[JsonValue](done.acknowledged)})
        return
    how = "fetched" if done.fetched else "there already"
    show_line(one_line(f"{done.info.name} ({done.info.model_type}) {how}: {done.info.file_path}"))
    if said is not None:
        show_line(f"note: {one_line(said)}")


def _facts(info: ModelInfo) -> dict[str, JsonValue]:
    return info.model_dump(mode="json")


def _network(info: ModelInfo) -> dict[str, JsonValue]:
    """What the tensors of an upscaler or a restorer of faces say; empty for other kinds."""
    if info.model_type not in (ModelType.UPSCALER, ModelType.RESTORER):
        return {}
    if not info.file_path.is_file():
        return {}
    from safelight.engines.spandrel_nets.engine import network_of

    try:
        found = network_of(info.file_path)
    except PipelineError as error:
        return {"problem": str(error)}
    return {
        "architecture": found.architecture,
        "purpose": PURPOSES.get(found.purpose, found.purpose),
        "scale": found.scale,
        "channels": f"{found.input_channels} in, {found.output_channels} out",
        "parameters": found.parameters,
    }


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


@contextmanager
def _bar(*, quiet: bool) -> Generator[OnBytes]:
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    silent = quiet or not CONSOLE.is_terminal
    with Progress(*columns, console=CONSOLE, transient=True, disable=silent) as progress:
        task = progress.add_task("fetching", total=None)

        def update(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield update


def _s3_link(bucket: str, key: str) -> str:
    """A signed address of an object, of the service that the store's settings name."""
    known = settings()
    if "/" in bucket:
        raise InvalidFieldValueError(f"{bucket!r} is no bucket", "write s3://BUCKET/KEY")
    service = Bucket(
        bucket,
        "",
        endpoint_url=known.s3_endpoint_url,
        region=known.s3_region,
        access_key=known.s3_access_key,
        secret_key=known.s3_secret_key,
        path_style=known.s3_path_style,
    )
    return service.foreign_link(key, LINK_SECONDS)
