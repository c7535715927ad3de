"""Every command of the guides does what they say."""

import re
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from typer import BadParameter
from typer.core import TyperGroup
from typer.main import get_command

from safelight.cli.commands import app
from safelight.cli.inputs import parse_options
from safelight.cli.options import FlowCommand, PipelineCommand, flow_words
from safelight.client.contracts import contract, refuse_unknown
from safelight.errors import PipelineError
from tests import claims, provoked
from tests.documents import blocks, commands, small_examples
from tests.prefect_database import put_database
from tests.served import CHECKOUT, safelight_up

DOCUMENTS = (
    CHECKOUT / "README.md",
    CHECKOUT / "SECURITY.md",
    CHECKOUT / "infra" / "README.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
)
(UsageError,) = BadParameter.__bases__
SERVED = ("safelight up", "safelight replay outputs/manifests/RUN.json")
"""Commands that run elsewhere in this file, or need the name of a run."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that use a served Safelight."""
    from examples.untrained import build_untrained

    root = tmp_path_factory.mktemp("served")
    put_database(database, root)
    build_untrained(root / "models" / "untrained")
    with safelight_up(root) as environment:
        yield environment


def taken(words: list[str]) -> None:
    """Read the options of the command that these words call as it does; nothing runs."""
    context = get_command(app).make_context("safelight", words)
    while isinstance(group := context.command, TyperGroup):
        rest = [*context._protected_args, *context.args]
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    if isinstance(context.command, FlowCommand):
        flow, described = context.command.subject(rest)
        given = parse_options(flow_words(context), described)
        if isinstance(context.command, PipelineCommand):
            refuse_unknown(given, described, flow)
        else:
            contract(flow).check(given, partly=True)


def test_the_program_takes_every_command_of_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (pipeline,) = blocks("docs/usage.md", "json")
    (tmp_path / "two_looks.json").write_text(pipeline)
    monkeypatch.chdir(tmp_path)
    found = [
        (document, command)
        for document in DOCUMENTS
        for command in commands(document)
        if command.startswith("safelight ")
    ]
    assert len(found) > 30
    for document, command in found:
        try:
            taken(shlex.split(command, comments=True)[1:])
        except Exception as error:
            error.add_note(f"{document.name}: {command}")
            raise


@pytest.mark.parametrize(
    "command",
    [
        "run photoreal_portrait_v1 --promt x",
        "run enhance --image x --quality-preset lowest",
        "image generate x --hight 3",
        "batch x --flow generate --steps 500",
        "pipeline two_looks.json --steps 3",
        "presets describe",
    ],
)
def test_a_command_that_the_program_would_refuse_is_found(command: str):
    with pytest.raises((PipelineError, UsageError)):
        taken(shlex.split(command))


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_usage_guide(served: dict[str, str], tmp_path: Path):
    small_examples(tmp_path / "examples")
    (pipeline,) = blocks("docs/usage.md", "json")
    (tmp_path / "two_looks.json").write_text(pipeline)
    ran = 0
    for command in commands("docs/usage.md"):
        if command.startswith(SERVED):
            continue
        words = shlex.split(command)
        done = subprocess.run(
            words, cwd=tmp_path, env=served, capture_output=True, text=True, check=False
        )
        wanted = 0 if "doctor" not in words else done.returncode
        assert done.returncode == wanted, f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        ran += 1
    assert ran >= 9
    manifests = Path(served["VOLUME_ROOT"]) / "outputs" / "manifests"
    newest = max(manifests.glob("*.json"), key=lambda path: path.stat().st_mtime)
    replayed = subprocess.run(
        ["safelight", "replay", str(newest)],
        cwd=tmp_path,
        env=served,
        capture_output=True,
        text=True,
        check=False,
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_batch_guide(served: dict[str, str], tmp_path: Path):
    batch, folder, grid, backfill = commands("docs/batches.md")

    def said(command: str) -> str:
        done = subprocess.run(
            shlex.split(command),
            cwd=CHECKOUT,
            env=served,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    first = said(f"{batch} --output {tmp_path}")
    assert first.count("succeeded") == 3
    assert len(list(tmp_path.rglob("*.png"))) == 4  # three pictures and their sheet
    (named,) = commands("docs/names.md")
    folder_too = f"--output {tmp_path / 'named'}"
    named = named.replace("hearts.zip", str(tmp_path / "hearts.zip"))
    said(named.replace("--output hearts", folder_too))
    (pictures,) = [path for path in (tmp_path / "named").iterdir() if path.name != "sheets"]
    names = sorted(path.name for path in pictures.iterdir())
    assert names[2] == "a red heart-7-0001.png"
    with zipfile.ZipFile(tmp_path / "hearts.zip") as archive:
        assert sorted(archive.namelist()) == [f"{pictures.name}/{name}" for name in names]
    (watching,) = commands("docs/watch.md")
    inbox = tmp_path / "inbox"
    small_examples(inbox)
    watching = watching.replace("watch uploads", f"watch {inbox}")
    once = said(watching.replace("--to enlarged", f"--to {tmp_path / 'enlarged'}"))
    assert "done astronaut.png" in once
    assert "refused box.mp4" in once
    assert said(batch).count("succeeded before") == 3
    looked = said(folder)
    assert "1 requests of enhance; nothing has run" in looked
    assert "box.mp4: a video; enhance takes a picture" in looked
    page = tmp_path / "grid.html"
    drawn = said(f"{grid} --html {page}")
    assert drawn.count("succeeded") == 8
    assert str(page) in drawn
    shown = page.read_text()
    assert shown.count("<table>") == 2
    assert shown.count("data:image/png") == 8
    assert said(backfill).count("created") == 2
    assert said(backfill).count("was there") == 2


def test_every_error_code_is_explained(volume: Path):
    known = provoked.retried()
    assert len(known) == 22
    assert known.keys() == provoked.PROVOKED.keys()
    for code in provoked.PROVOKED:
        assert provoked.message(code, volume).code == code
    _, inside, _ = provoked.written(provoked.PAGE.read_text())
    assert inside == provoked.table(volume), "python -m tests.provoked writes it anew"


def test_every_number_that_is_claimed_names_what_shows_it():
    rows, there = claims.rows(), claims.sentences()
    assert len(rows) >= claims.COUNT
    assert rows.keys() <= there.keys(), "a sentence was changed: change its row"
    # what was written since waits for its row, a few at a time
    assert len(set(claims.chosen()) - rows.keys()) <= 10, "python -m tests.claims prints them"
    assert all(rows.values())
    sources = "\n".join(file.read_text() for file in (CHECKOUT / "tests").rglob("test_*.py"))
    for named in rows.values():
        for name in named:
            known = (CHECKOUT / name).exists() if "/" in name else f"def {name}(" in sources
            assert known, name


def test_every_test_that_the_threats_name_is_there():
    rows = (CHECKOUT / "docs" / "security.md").read_text().splitlines()
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    assert len(named) > 15
    first = rows.index("| who | what they can do | what stops the rest | shown by |")
    table = takewhile(lambda row: row.startswith("|"), rows[first + 2 :])
    threats = [[cell.strip() for cell in row.strip("|").split(" |")] for row in table]
    assert len(threats) > 9
    for who, _, stops, shown, *_ in threats:
        assert "`test_" in shown or stops.startswith("nothing"), who
    sources = "\n".join(file.read_text() for file in (CHECKOUT / "tests").rglob("test_*.py"))
    assert not {name for name in named if not re.search(rf"def {name}\(", sources)}


def anchors(document: Path) -> set[str]:
    """What its headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        text = re.sub(r"```.+?```", "", document.read_text(), flags=re.DOTALL)
        for target, _, heading in re.findall(r"\]\(([^)#:]*)(#([^):]+))?\)", text):
            there = document.parent / target if target else document
            assert there.exists(), f"{document.name} links to {target}"
            if heading:
                assert heading in anchors(there), f"{document.name} links to {target}#{heading}"
