"""What a person is told in a terminal is told in a pipe too."""

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from safelight.cli.copies import LINKS
from safelight.cli.printing import (
    CONSOLE,
    ERRORS,
    outcome_facts,
    show_error,
    show_line,
    show_outcome,
    show_rows,
)
from safelight.client.runs import RunEnd
from safelight.engines.identity import EngineIdentity
from safelight.errors import InvalidMediaError
from safelight.provenance.manifest import Manifest, StageEntry

NOTES = (
    "the prompt has more words than the encoder reads: the last 12 were left out " * 3,
    "the picture is transparent in parts: laid on white",
)


@pytest.fixture(name="ended")
def ended_run() -> RunEnd:
    """Of two stages, the first with notes."""
    identity = EngineIdentity(engine_id="compute", version="1")
    stages = tuple(
        StageEntry(
            name=name,
            stage_type="generate",
            status="done",
            parameters={},
            engine=identity,
            notes=notes,
        )
        for name, notes in (("first", NOTES), ("second", ()))
    )
    run = FlowRun(flow_id=uuid4(), state=Completed())
    manifest = Manifest(
        flow="generate",
        flow_run_id=str(run.id),
        parameters={},
        stages=stages,
        versions={},
        device_class="cpu",
        device_name="a processor",
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:01+00:00",
        success=True,
    )
    return RunEnd(run, manifest, "generate")


def test_every_note_of_a_run_is_on_the_line_of_its_stage(
    ended: RunEnd, capsys: pytest.CaptureFixture[str]
):
    show_outcome(ended, LINKS)
    lines = capsys.readouterr().out.splitlines()
    assert "stage\tstatus\tseconds\tresult\tnotes" in lines
    (told,) = [line for line in lines if line.startswith("first\tdone")]
    assert "; ".join(" ".join(note.split()) for note in NOTES) in told
    assert "second\tdone\t0.00\t\t" in lines


def test_programs_are_told_every_note_by_stage(ended: RunEnd):
    assert outcome_facts(ended, LINKS)["stages"] == [
        {"stage": "first", "status": "done", "notes": [*NOTES]},
        {"stage": "second", "status": "done", "notes": []},
    ]


def test_what_looks_like_an_emoji_or_a_style_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]):
    told = "root:x:0 :fire: [red]a[/red]"
    show_error(InvalidMediaError(told, told))
    show_line(told)
    show_rows(["prompt"], [[told]])
    shown = capsys.readouterr()
    assert shown.err.count(told) == 2
    assert shown.out.count(told) == 2


def test_no_console_turns_words_into_emoji():
    assert not any(console._emoji for console in (CONSOLE, ERRORS))
