"""Names of files and folders that Linux, macOS and Windows all take, and tell apart.

pathvalidate replaces the characters and names that one of the three forbids. Beyond what it knows:
dots alone, Windows' `CONIN$`, its short names (`LONGNA~1`), marks that turn or hide text, and
names that are one to a file system that looks neither at case nor at Unicode forms.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from pathvalidate import sanitize_filename

LONGEST_NAME = 160
"""Bytes of a file's name without its ending, in UTF-8; file systems stop at 255 with everything."""
LONGEST_FOLDER = 80
"""Bytes of a folder's name."""
LONGEST_PATH = 200
"""UTF-16 units of the whole, as Windows counts: 260 with the folder that it lies in."""
MOST_FOLDERS = 12
"""Deeper ones become one."""
GAP = "-"
BETWEEN = " -_.,"
"""What stands between the parts of a name, and never at its ends."""
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of what nobody sees, or what turns the text after it."""
_JOINERS = "\u200d\u200c"
"""Unseen, but emoji and Indic and Persian words are made with them."""
_SHORT = re.compile(r"~(?=\d)")
_RESERVED = re.compile(r"(CONIN|CONOUT|CLOCK)\$", re.IGNORECASE)


def plain(text: str) -> str:
    """A value on one line, in composed Unicode, without what is not seen; slashes stay."""
    text = unicodedata.normalize("NFC", text)
    seen = "".join(
        " " if c.isspace() or (unicodedata.category(c) in _UNSEEN and c not in _JOINERS) else c
        for c in text
    )
    return " ".join(seen.split())


def part(text: str, most_bytes: int) -> str:
    """The name of one file, without its ending, or of one folder; empty where nothing is left.

    Args:
        text: any; a slash becomes a dash.
        most_bytes: in UTF-8.
    """
    text = _SHORT.sub(GAP, plain(text)).strip(BETWEEN)
    found = sanitize_filename(text, replacement_text=GAP, platform="universal")
    found = cut_bytes(found.strip(BETWEEN), most_bytes).strip(BETWEEN)
    stem, dot, rest = found.partition(".")
    # what was cut or stripped may have left a name that Windows keeps for itself
    again = sanitize_filename(stem.rstrip(), platform="universal")
    if _RESERVED.fullmatch(again):
        again += "_"
    return again + dot + rest


def cut(text: str, most: int) -> str:
    """The first characters; marks stay with their letter, and joined emoji whole."""
    while most > 0 and _joined(text, most):
        most -= 1
    return text[:most].rstrip(BETWEEN)


def cut_bytes(text: str, most: int) -> str:
    """The beginning that has at most so many bytes in UTF-8."""
    if len(text.encode()) <= most:
        return text
    return cut(text, len(text.encode()[:most].decode(errors="ignore")))


def _joined(text: str, at: int) -> bool:
    """Whether the character there belongs to the one before."""
    if at >= len(text):
        return False
    after = text[at]
    return (
        unicodedata.category(after).startswith("M")
        or after in _JOINERS
        or text[at - 1] in _JOINERS
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # a colour of skin
    )


def same(name: str) -> str:
    """What is equal for two names that some file system takes for one."""
    folded = unicodedata.normalize("NFKC", name).upper().casefold()
    return unicodedata.normalize("NFKC", folded)


class Taken:
    """Paths that are given to nobody else: files and folders of one place, whatever their case."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}
        """Equal form of a folder's path to its path as it is spelled."""
        self._there: dict[str, PurePosixPath] = {}
        """Files of others, by the equal form of their path."""
        self._numbers: dict[str, int] = {}
        """The last number behind a wanted path."""

    def candidates(self, parts: Sequence[str], extension: str) -> Iterator[PurePosixPath]:
        """Paths for one file, the wanted first, then with -2, -3 and so on; none is given away.

        Args:
            parts: folders and the name, as `fitted` gives them.
            extension: with its dot.
        """
        folder, name = self.folder(parts[:-1]), parts[-1]
        wanted = same(str(folder / (name + extension)))
        while True:
            number = self._numbers[wanted] = self._numbers.get(wanted, 0) + 1
            end = f"{GAP}{number}" if number > 1 else ""
            path = folder / f"{name}{end}{extension}"
            key = same(str(path))
            if key not in self._files and key not in self._folders:
                yield path

    def take(self, path: PurePosixPath) -> None:
        """Give a path away."""
        self._files.add(same(str(path)))
        for folder in (each for each in path.parents if each.name):
            self.know_folder(folder)

    def know_folder(self, folder: PurePosixPath) -> None:
        """There is such a folder, spelled like this."""
        self._folders.setdefault(same(str(folder)), str(folder))

    def know_file(self, path: PurePosixPath) -> None:
        """There is such a file, of somebody else or of an earlier time."""
        self._there.setdefault(same(str(path)), path)

    def there(self, path: PurePosixPath) -> PurePosixPath | None:
        """The known file that some file system takes for this one."""
        return self._there.get(same(str(path)))

    def folder(self, parts: Sequence[str]) -> PurePosixPath:
        """A folder as it is spelled already, or beside the file that has its name."""
        path = PurePosixPath()
        for each in parts:
            number, below = 1, path / each
            while same(str(below)) in self._files or self.there(below) is not None:
                number += 1
                below = path / f"{each}{GAP}{number}"
            path = PurePosixPath(self._folders.get(same(str(below)), str(below)))
        return path


def fitted(parts: Sequence[str], extension: str) -> list[str]:
    """The same, shortened until the whole path fits: folders evenly first, then the name.

    Args:
        parts: folders and the name, as `part` gives them; the last is not empty.
        extension: that the name gets.
    """
    *folders, name = parts
    if len(folders) > MOST_FOLDERS:
        deep = part(GAP.join(folders[MOST_FOLDERS - 1 :]), LONGEST_FOLDER)
        folders = [*folders[: MOST_FOLDERS - 1], deep]
    name = cut_bytes(name, LONGEST_NAME)
    for most in (LONGEST_FOLDER, 48, 32, 24, 16, 12, 8):
        shorter = [part(each, most) or GAP for each in folders]
        room = LONGEST_PATH - _units("/".join((*shorter, ""))) - len(extension) - len("-2000")
        if room >= min(_units(name), 64):
            break
    while _units(name) > room:
        name = part(cut(name, len(name) - 1), LONGEST_NAME)
    return [*shorter, name or "file"]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
