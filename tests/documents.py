"""What stands in the documents to be copied and run."""

import re

from tests.served import CHECKOUT


def blocks(document: str, language: str) -> list[str]:
    """Its code blocks in one language."""
    text = (CHECKOUT / document).read_text()
    return re.findall(rf"```{language}\n(.+?)```", text, re.DOTALL)


def commands(document: str) -> list[str]:
    """The lines of its shell blocks, continued ones joined."""
    text = "\n".join(blocks(document, "sh")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]
