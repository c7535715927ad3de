"""How often Python looks for garbage that refers to itself."""

import gc

AFTER = 50_000
"""New objects after which they are looked through for cycles. Python's 700 make it go over the
hundred thousands that imports leave again and again: a fifth of the time of a short command, and of
a server's start."""


def collect_seldom() -> None:
    """Have this process look for it seldom; what nothing refers to is freed at once as ever."""
    gc.set_threshold(AFTER)
