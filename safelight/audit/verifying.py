"""Whether an audit log is as it was written."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from safelight.audit.chain import BEGINNING, Line, read_line
from safelight.audit.log import EXPIRED, HEAD_LOST, files, locked, read_head

MOST_FINDINGS = 100
"""That are told one by one."""


class Verdict(BaseModel):
    """What was found."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    intact: bool
    """Whether nothing is wrong."""
    lines: int
    """How many there are."""
    head: str | None
    """NUMBER:HASH of the last line; keep it elsewhere, and ask for it later."""
    findings: list[str]
    """What is wrong."""


class _Walk:
    """Goes through a log line by line."""

    def __init__(self, known: tuple[int, str] | None) -> None:
        self.findings: list[str] = []
        self.first: Line | None = None
        self.last: Line | None = None
        self.expired: dict[int, str] = {}
        self.lines = 0
        self.known_seen = known is None
        self._known = known

    def line(self, where: str, text: bytes) -> None:
        self.lines += 1
        line = read_line(text)
        if line is None:
            self.findings.append(f"{where} is not as it was written")
            return
        if self.last is not None:
            self._joins(where, line, self.last)
        elif self.lines > 1:  # what stood before it cannot be read
            pass
        self.first = self.first or line
        self.last = line
        if line.event_type == EXPIRED:
            through, digest = line.details.get("through"), line.details.get("hash")
            if isinstance(through, int) and isinstance(digest, str):
                self.expired[through] = digest
        if line.event_type == HEAD_LOST:
            self.findings.append(f"{where}: head.json was lost; lines before may have been cut off")
        if self._known == (line.number, line.hash):
            self.known_seen = True

    def _joins(self, where: str, line: Line, last: Line) -> None:
        if line.number > last.number + 1:
            self.findings.append(
                f"{where}: lines {last.number + 1} to {line.number - 1} are missing before it"
            )
        elif line.number <= last.number:
            self.findings.append(f"{where}: line {line.number} stands after line {last.number}")
        elif line.previous != last.hash:
            self.findings.append(f"{where}: the line before it is another than when it was written")

    def beginning(self) -> None:
        """Lines before the first are missing, unless a later one says that their time was over."""
        if self.first is None or (self.first.number, self.first.previous) == (1, BEGINNING):
            return
        if self.expired.get(self.first.number - 1) != self.first.previous:
            self.findings.append(f"lines 1 to {self.first.number - 1} are missing at the beginning")


def verify(folder: Path, known: tuple[int, str] | None = None, *, copied: bool = False) -> Verdict:
    """Look through a log.

    Args:
        folder: of the log.
        known: number and hash of a line that must be in it, as an earlier look told them.
        copied: whether it is a copy, which may end before the log and has no `head.json`.
    """
    walk = _Walk(known)
    if not folder.is_dir():
        found = [] if known is None else [f"line {known[0]}, which is known, is missing"]
        return Verdict(intact=not found, lines=0, head=None, findings=found)
    with locked(folder):
        for path in files(folder):
            with path.open("rb") as file:
                for at, text in enumerate(file, 1):
                    walk.line(f"{path.name}:{at}", text)
        head = read_head(folder)
    walk.beginning()
    last = walk.last
    if head is None:
        if walk.lines and not copied:
            walk.findings.append("head.json is missing: lines may have been cut off at the end")
    elif last is None or last.number < head.number:
        begin = 1 if last is None else last.number + 1
        walk.findings.append(f"lines {begin} to {head.number} are missing at the end")
    elif last.number > head.number + 1:  # one more is what a killed process leaves
        walk.findings.append(f"the last line is {last.number}, head.json says {head.number}")
    elif last.number == head.number and last.hash != head.hash:
        walk.findings.append(f"line {last.number} is another than head.json says")
    if not walk.known_seen and known is not None:
        walk.findings.append(f"line {known[0]}, which is known, is missing or another one")
    told = walk.findings[:MOST_FINDINGS]
    if len(walk.findings) > MOST_FINDINGS:
        told.append(f"and {len(walk.findings) - MOST_FINDINGS} more")
    return Verdict(
        intact=not told,
        lines=walk.lines,
        head=None if last is None else f"{last.number}:{last.hash}",
        findings=told,
    )
