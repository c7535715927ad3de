"""500 prompts that make bad names of files, and what Windows, macOS and Linux say of a name.

The rules are written out here by hand, from the systems' own documents, so that they do not come
from what they test.
"""

import random
import re
import unicodedata

RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"} | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"
}
FORBIDDEN = set('<>:"/\\|?*') | {chr(c) for c in range(32)} | {"\x7f"}
WRITTEN = [
    "",
    " ",
    ".",
    "..",
    "...",
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "C:evil",
    "\\\\server\\share\\x",
    "~/.ssh/id_rsa",
    "~root",
    "-rf /",
    "--output=x",
    "$(reboot)",
    "`id`",
    "a;rm -rf ~",
    "a|b>c<d",
    "a\nb\r\nc\td",
    "a\0b",
    'quote " quote',
    "it's",
    "100%",
    "%PATH%",
    "{prompt}",
    "{{}}",
    "file::$DATA",
    "file.txt:stream",
    "PROGRA~1",
    "longna~12.png",
    ".hidden",
    ".git",
    "desktop.ini",
    "Thumbs.db",
    "trailing.",
    "trailing ",
    "trailing. . .",
    " leading",
    "a/b/c/d/e",
    "a//b",
    "e\u0301t\u00e9",
    "\u00e9t\u00e9",
    "\u212bngstr\u00f6m",
    "A\u030angstr\u00f6m",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "byte\ufeffmark",
    "\ud800lone",
    "lone\udfff",
    "\uffff",
    "\U000e0001tag",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 40,
    "\U0001f44d\U0001f3ff" * 60,
    "e" + "\u0301" * 500,
    "\u0301" * 500,
    "\uac00" * 400,
    "\u1f82" * 400,
    "\u0958\u0928" * 200,
    "\ufdfa" * 100,
    "\u0130stanbul",
    "istanbul",
    "\u0131stanbul",
    "STRASSE",
    "stra\u00dfe",
    "\ufb01sh",
    "fish",
    "FISH",
    "\uff26ish",
    "x" * 255,
    "x" * 256,
    "x" * 5000,
    "\u4e2d" * 5000,
    "\U0001f600" * 5000,
]


def prompts() -> list[str]:
    """500 of them, the same each time."""
    drawn = random.Random(20)
    found = list(WRITTEN)
    for name in sorted(RESERVED):
        for form in ("{}", "{}.png", "{} ", "{}.tar.gz", " {}", "{}..", "{}\u200b"):
            found.append(form.format(name.upper() if drawn.random() < 0.5 else name))
    alphabet = [chr(c) for c in range(1, 128)] + list(
        "éÉß\u017fKÅ\u0301\u200d\u202e中😀\u00a0\uff0e\uff0f\uff1a"
    )
    while len(found) < 500:
        found.append("".join(drawn.choices(alphabet, k=drawn.randint(1, 400))))
    return found[:500]


def refusals(name: str) -> list[str]:
    """Why one of the systems does not take a name, or changes it; empty where all take it as is."""
    stem = name.split(".")[0].rstrip(" ").casefold()
    units = len(unicodedata.normalize("NFD", name).encode("utf-16-le", "surrogatepass")) // 2
    said = {
        "empty": not name,
        "characters": bool(FORBIDDEN & set(name)),
        "reserved": stem in RESERVED,
        "ends in a dot or blank": name.endswith((".", " ")),
        "begins with a blank": name.startswith(" "),
        "hidden, or dots alone": name.startswith("."),
        "an option": name.startswith("-"),
        "a short name of Windows": bool(re.search(r"~\d", name)),
        "255 bytes": len(name.encode("utf-8", "surrogatepass")) > 255,
        "255 units": units > 255,
        "no UTF-8": any("\ud800" <= c <= "\udfff" for c in name),
        "not composed": unicodedata.normalize("NFC", name) != name,
        "unseen": any(
            unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn", "Zl", "Zp")
            and c not in "\u200d\u200c"
            for c in name
        ),
    }
    return [why for why, wrong in said.items() if wrong]


def forms(path: str) -> set[str]:
    """What systems that look at neither case nor Unicode form have a path as."""
    nfc, nfd = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return {nfc.casefold(), nfc.upper(), nfc.lower(), nfd.casefold()}
