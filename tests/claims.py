"""Sentences of the documents that hold a number, and sixty of them chosen by a fixed seed.

`python -m tests.claims` prints the chosen ones that docs/claims.md has no row for.
"""

import hashlib
import re
import sys

from tests.served import CHECKOUT

PAGE = CHECKOUT / "docs" / "claims.md"
SEED, COUNT = "safelight", 60
LEAST_WORDS = 6


def sentences() -> dict[str, str]:
    """Every sentence with a number outside code and tables, to the document it stands in."""
    found: dict[str, str] = {}
    for document in sorted((CHECKOUT / "docs").rglob("*.md")):
        if document == PAGE:
            continue
        text = re.sub(r"```.*?```|<!--.*?-->", "", document.read_text(), flags=re.DOTALL)
        lines = [
            "\n" if line.startswith(("|", "#", "    ", "!")) else line for line in text.splitlines()
        ]
        for part in re.split(r"\n\s*\n|\n(?=- |\d+\. )", "\n".join(lines)):
            whole = " ".join(re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", part).split())
            for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z`*])", whole):
                plain = re.sub(r"^(- |\*\*|\d+\. )+", "", sentence).replace("|", "/")
                counted = re.sub(r"`[^`]*`|\b[A-Za-z][\w.-]*", "", plain)  # sha256 is a name
                if re.search(r"\d", counted) and len(plain.split()) >= LEAST_WORDS:
                    found.setdefault(plain, str(document.relative_to(CHECKOUT)))
    return found


def chosen() -> list[str]:
    """Sixty of them, by a hash of seed and sentence: a change elsewhere changes no choice."""
    return sorted(sentences(), key=_place)[:COUNT]


def _place(sentence: str) -> str:
    return hashlib.sha256(f"{SEED} {sentence}".encode()).hexdigest()


def rows() -> dict[str, list[str]]:
    """Sentence to the tests and benchmarks that its row names."""
    cells = (line.strip("|").split(" | ") for line in PAGE.read_text().splitlines())
    return {
        cell[0].strip(): re.findall(r"`([^`]+)`", cell[2])
        for cell in cells
        if len(cell) == 3 and cell[1].endswith(".md")
    }


def main() -> None:
    """Print them."""
    known = rows() if PAGE.exists() else {}
    there = sentences()
    for sentence in chosen():
        if sentence not in known:
            sys.stdout.write(f"| {sentence} | {there[sentence]} | |\n")


if __name__ == "__main__":
    main()
