"""Foreign text in Markdown: as code, in which no link, picture or tag is anything but text."""

import re
from collections.abc import Iterable, Sequence

from safelight.errors import one_line
from safelight.redacting import redacted


def code(text: str) -> str:
    """Text of a request, a file's name or an error as a code span, on one line.

    Prefect's UIs show Markdown with links and pictures live: an address in a prompt would be
    fetched by the browser of whoever looks at the page.
    """
    line = one_line(redacted(text))
    if not line.strip():
        return ""
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in lines)


def _cell(markdown: str) -> str:
    return markdown.replace("|", "\\|")


def cell(text: str) -> str:
    """Text in a table artifact, which one UI shows as it is and the other takes for Markdown."""
    return code(text) if re.search(r"[*_<>\[\]`\\~&]|://|www\.", text) else one_line(redacted(text))
