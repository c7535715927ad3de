"""The command `safelight watch`."""

from typing import Annotated

import typer

from safelight.cli.batch_commands import ParallelOption, ShardsOption
from safelight.cli.inputs import offered, parse_options, uploaded
from safelight.cli.launching import NamesOption, reporting
from safelight.cli.options import flow_words
from safelight.cli.server import configured_api_url
from safelight.client.contracts import contract
from safelight.watching.watch import Original

WATCH_HELP = (
    "Have every new file of a folder run a flow, until Ctrl-C; extra options, for instance "
    "--quality-preset low, are given to every file. Each content is done once, whatever it is "
    "called. FOLDER and --to may be s3:// prefixes."
)


@reporting
def watch(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="Looked into, with all below it.")],
    flow: Annotated[str, typer.Option(help="Preset or other flow that each file runs.")],
    to: Annotated[str, typer.Option(help="Folder for results, and for refused files.")],
    original: Annotated[
        Original, typer.Option(help="What becomes of a file when its results are there.")
    ] = "keep",
    names: NamesOption = None,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds: a file that is the same for so long is whole.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left to do.")] = False,
    parallel: ParallelOption = None,
    retries: Annotated[int | None, typer.Option(help="More tries after a passing fault.")] = None,
    shards: ShardsOption = None,
) -> None:
    """Watch a folder."""
    from safelight.cli.watching import Watched, watch_folder  # imports what runs flows

    target = contract(flow)
    shared = parse_options(flow_words(context), target.described)
    target.check(shared, partly=True)
    options = offered(parallel=parallel, retries=retries, shards=shards)
    contract("batch").check({**options, "flow": flow})
    shared = uploaded(shared, here=configured_api_url() is None)
    watch_folder(Watched(folder, flow, to, shared, options, names, original, settle, once))
