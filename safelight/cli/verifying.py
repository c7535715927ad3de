"""Shows what a file's signature says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.printing import CONSOLE, show_line

if TYPE_CHECKING:
    from safelight.marking.verifying import Signer, Step, Verdict

FOUND = {
    "intact": "signed, and not changed since",
    "changed": "CHANGED after it was signed",
    "unsigned": "not signed: what it says of itself cannot be relied on",
    "unknown": "nothing in it tells who made it",
}

TrustOption = Annotated[
    Path | None, typer.Option(help="PEM of further certificates whose signatures count as known.")
]
VERIFY_HELP = (
    "Say who signed a picture or video, how it was made, and whether it was changed. Ends with "
    "status 1 unless a signer that is known here signed it and nobody changed it."
)


def verify_file(file: Path, trust: Path | None, *, as_json: bool) -> bool:
    """Print what is found; whether it is as a known signer left it."""
    from safelight.marking.verifying import verify  # C2PA's library is large

    verdict = verify(file, trust)
    if as_json:
        CONSOLE.print_json(verdict.model_dump_json())
        return verdict.trusted
    show_line(f"{file.name}: {FOUND[verdict.finding]}")
    if verdict.signer is not None:
        show_line(f"signed by: {_who(verdict.signer)}")
    if verdict.program:
        show_line(f"made with: {verdict.program}")
    for step in verdict.steps:
        show_line(f"stage: {_how(step)}")
    if verdict.sources:
        show_line(f"made of: {verdict.sources} file{'s' * (verdict.sources > 1)}")
    _show_problems(verdict)
    return verdict.trusted


def _show_problems(verdict: "Verdict") -> None:
    for problem in verdict.problems:
        show_line(f"problem: {problem}")


def _who(signer: "Signer") -> str:
    name = f"{signer.organisation}, {signer.name}".strip(", ") or "a certificate without a name"
    if signer.ours:
        return f"{name} (known here)"
    return f"somebody else, who writes of themselves: {name}"


def _how(step: "Step") -> str:
    said = [step.stage, step.origin, step.engine, step.model]
    weights = ", ".join(each[:12] for each in step.weights)
    return "; ".join(part for part in (*said, f"weights {weights}" if weights else "") if part)
