"""Becomes another program: `python -m safelight.engines.comfy.becoming FOLDER WORDS`.

Started by `safelight.children`, so the kernel ends it with its parent: that is kept across `exec`.
"""

import os
import sys


def main() -> None:
    """Go into the folder and become the program."""
    folder, *words = sys.argv[1:]
    os.chdir(folder)
    os.environ.pop("PYTHONSAFEPATH", None)  # a script may import what lies beside it
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
