"""A request for each picture or clip of a folder or zip, with a prompt from the files beside it."""

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from unicodedata import normalize

from pydantic import JsonValue

from flows.batching.reading.files import decoded, parse
from flows.batching.reading.members import LeftAside, Member, Members, file_name, natural
from flows.batching.reading.rows import FILE_NAME, LARGEST_FILE, BadRequestError, Row, all_refused
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    InvalidMediaError,
    MissingFileError,
    MissingRequiredFieldError,
    PipelineError,
)
from safelight.media.still_formats import HEAD, other_kind, still_format
from safelight.prompts.grammar import literal
from safelight.provenance.remixing.reading import understand
from safelight.store.artifact import MediaKind
from safelight.store.inputs import keep_as_it_came

PROMPT, NEGATIVE = "prompt", "negative_prompt"
CAPTION = "text"
"""What tables of pictures call a caption, as the data sets of Hugging Face do."""
TABLES = frozenset({"metadata.csv", "metadata.jsonl"})
LARGEST_TEXT = 2**20
"""Bytes of the text beside a picture."""
PICTURES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .tif .tiff .bmp .avif .heic .heif .jxl".split()
)
CLIPS = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mxf .mts .m2ts .mpg .mpeg .wmv .flv .ogv .3gp .3g2".split()
)
_MATROSKA = b"\x1aE\xdf\xa3"
_SOUND = (b"M4A ", b"M4B ", b"M4P ")
NAMED: Mapping[MediaKind, str] = {"image": "picture", "video": "video", "audio": "sound"}


@dataclass(frozen=True)
class MediaField:
    """The parameter of a flow that takes a file."""

    flow: str
    """Its name."""
    name: str
    """Of the parameter."""
    kind: MediaKind
    """What it takes."""


@dataclass(frozen=True)
class Gathered:
    """The requests of a folder or archive."""

    rows: Sequence[Row]
    """In natural order of the files; the media parameter holds the file's name."""
    left_aside: Sequence[LeftAside]
    """All other files, each with its reason."""
    field: MediaField
    """The parameter that takes the files."""
    files: Mapping[str, Member]
    """By the name of the request."""

    def kept(self) -> list[Row]:
        """The rows with the files in the store, by their content.

        Raises:
            InvalidMediaError: files hold no picture or clip; the first is told, the others named.
        """
        rows: list[Row] = []
        refused: list[tuple[str, PipelineError]] = []
        for row in self.rows:
            try:
                with named(row.where), self.files[row.where].opened() as path:
                    uri = keep_as_it_came(path, (self.field.kind,)).uri
            except InvalidMediaError as error:
                refused.append((row.where, error))
                continue
            rows.append(replace(row, values={**row.values, self.field.name: uri}))
        if refused:
            raise all_refused(refused)
        return rows


def gather_rows(
    members: Members, field: MediaField, names: Collection[str], *, read_prompts: bool
) -> Gathered:
    """What a folder asks for.

    A picture's own values are those of its row in `metadata.csv` or `metadata.jsonl`; a prompt that
    is not there is that of the `.txt` of its name, then, when asked for, that in its metadata.

    Args:
        members: of the folder.
        field: of the flow that takes the files.
        names: of all parameters of the flow.
        read_prompts: look for prompts in the pictures' metadata.

    Raises:
        InvalidFieldValueError: there is nothing for this flow, or a text or table cannot be read.
        InvalidMediaError: files named like pictures hold none.
        PipelineError: a table names what is no parameter, or a file that is not there.
    """
    if read_prompts and PROMPT not in names:
        raise ContractMismatchError(
            f"read_prompts is true, and {field.flow} takes no prompt", "leave out read_prompts"
        )
    left = list(members.left_aside)
    files: dict[str, Member] = {}
    texts: dict[str, Member] = {}
    tables: list[Member] = []
    refused: list[tuple[str, PipelineError]] = []
    for member in members.files:
        path = PurePosixPath(member.name)
        if path.name.casefold() in TABLES:
            tables.append(member)
        elif path.suffix.casefold() == ".txt":
            texts[_stem(member.name)] = member
        else:
            try:
                reason = _not_taken(member, field)
            except InvalidMediaError as error:
                refused.append((member.name, error))
                continue
            if reason is None:
                files[member.name] = member
            else:
                left.append(LeftAside(member.name, reason))
    if refused:
        raise all_refused(refused)
    if not files:
        told = f"; left aside: {', '.join(map(str, left[:5]))}" if left else ""
        raise InvalidFieldValueError(
            f"{members.title} holds no {NAMED[field.kind]} for {field.flow}{told}",
            f"put a {NAMED[field.kind]} into it, or name another flow",
        )
    listed = _listed(tables, files, names, field)
    captions = _captions(texts, files, names, field, left)
    rows: list[Row] = []
    for name, member in files.items():
        own = listed.get(name, Row(name, {}))
        values = dict(own.values)
        if PROMPT not in values and name in captions:
            values[PROMPT] = captions[name]
        if read_prompts and PROMPT not in values:
            values = {**_told_inside(member, names), **values}
        rows.append(Row(name, {field.name: name, **values}, text=own.text))
    left.sort(key=lambda each: natural(each.name))
    return Gathered(rows, left, field, files)


@contextmanager
def named(name: str) -> Generator[None]:
    """Say in refusals which file it is."""
    try:
        yield
    except PipelineError as error:
        told = error.problem.removeprefix(file_name(name)).removeprefix(":").strip()
        raise type(error)(f"{name}: {told}", error.remedy) from error


def _not_taken(member: Member, field: MediaField) -> str | None:
    """Why a file is not for this flow; None when it is."""
    suffix = PurePosixPath(member.name).suffix.casefold()
    start = member.start(HEAD)
    still = still_format(start)
    takes = f"{field.flow} takes a {NAMED[field.kind]}"
    if field.kind == "image":
        if still is not None:
            return None
        if suffix in PICTURES:
            what = other_kind(start) if start else "nothing (0 bytes)"
            raise InvalidMediaError(
                f"{member.name} holds {what}, expected a picture",
                "save the picture again, or take the file out",
            )
    elif still == "GIF":
        return None
    elif still is not None:
        return f"a picture; {takes}"
    if suffix in CLIPS or _begins_a_clip(start):
        return None if field.kind == "video" else f"a video; {takes}"
    return "no picture or video"


def _begins_a_clip(start: bytes) -> bool:
    riff = start.startswith(b"RIFF") and start[8:12] == b"AVI "
    boxes = start[4:8] == b"ftyp" and start[8:12] not in _SOUND
    return riff or boxes or start.startswith(_MATROSKA)


def _captions(
    texts: Mapping[str, Member],
    files: Mapping[str, Member],
    names: Collection[str],
    field: MediaField,
    left: list[LeftAside],
) -> dict[str, str]:
    """Text by the picture that it stands beside; an empty one is none."""
    beside: dict[str, list[str]] = {}
    for name in files:
        beside.setdefault(_stem(name), []).append(name)
    found: dict[str, str] = {}
    for stem, member in texts.items():
        if stem not in beside:
            kind = NAMED[field.kind]
            left.append(LeftAside(member.name, f"a text beside no {kind} of its name"))
        elif PROMPT not in names:
            left.append(LeftAside(member.name, f"a text; {field.flow} takes no prompt"))
        elif text := _text(member):
            found.update(dict.fromkeys(beside[stem], text))
        else:
            left.append(LeftAside(member.name, "an empty text"))
    return found


def _text(member: Member) -> str:
    data = member.start(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise BadRequestError(
            f"{member.name} has more than {LARGEST_TEXT} bytes, expected the text of a prompt",
            f"shorten {member.name}, or take it out",
        )
    with named(member.name):
        return decoded(data).strip()


def _listed(
    tables: Sequence[Member],
    files: Mapping[str, Member],
    names: Collection[str],
    field: MediaField,
) -> dict[str, Row]:
    """The rows of all tables by the picture that they name."""
    known = [name for name in names if name != field.name]
    columns = [FILE_NAME, *known, *([CAPTION] if PROMPT in known else ())]
    there = {normalize("NFC", name): name for name in files}
    found: dict[str, Row] = {}
    for table in tables:
        folder = PurePosixPath(table.name).parent
        with named(table.name):
            for row in parse(table.start(LARGEST_FILE + 1), columns):
                name, values = _of_row(row, known)
                path = normalize("NFC", str(folder / name.replace("\\", "/")))
                if path not in there:
                    raise MissingFileError(
                        f"{row.where} names {name[:200]!r}, which is no {NAMED[field.kind]} of the "
                        "folder",
                        f"correct {FILE_NAME}, counted from the folder of the table",
                    )
                if there[path] in found:
                    raise ContractMismatchError(
                        f"{row.where} names {path}, which has a row already", "keep one of them"
                    )
                found[there[path]] = Row(there[path], values, text=row.text)
    return found


def _of_row(row: Row, known: Collection[str]) -> tuple[str, dict[str, JsonValue]]:
    values = dict(row.values)
    name = values.pop(FILE_NAME, None)
    if not isinstance(name, str) or not name:
        raise MissingRequiredFieldError(
            f"{row.where} has no {FILE_NAME}", f"give each row the {FILE_NAME} of its picture"
        )
    if CAPTION not in known and CAPTION in values:
        if PROMPT in values:
            raise ContractMismatchError(
                f"{row.where} has {CAPTION} and {PROMPT}, which are one", "keep one of them"
            )
        values[PROMPT] = values.pop(CAPTION)
    return name, values


def _told_inside(member: Member, names: Collection[str]) -> dict[str, JsonValue]:
    """The prompts in a picture's own metadata; nothing where it says none."""
    with member.opened() as path:
        try:
            told = understand(path).parameters
        except InvalidFieldValueError:
            return {}
    taken = {name: told[name] for name in (PROMPT, NEGATIVE) if name in told and name in names}
    return {name: literal(text) if isinstance(text, str) else text for name, text in taken.items()}


def _stem(name: str) -> str:
    return normalize("NFC", str(PurePosixPath(name).with_suffix("")))
