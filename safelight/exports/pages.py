"""What a batch has made as one HTML file: opens without a network, full pictures on a click."""

from base64 import b64encode, standard_b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import chain
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.exports.facts import Result, outcome_results
from safelight.exports.single_files import check_file, write_file
from safelight.provenance.batches import BatchReport
from safelight.provenance.manifest import Manifest, StageEntry
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

MOST_BYTES = 512 * 2**20
"""Of all pictures together: they all stand in the file, and a browser holds it in memory."""
CHUNK = 3 * 2**18
"""Bytes at a time; a multiple of 3, so that base64 of the parts is that of the whole."""
GRID_STAGE = "axes"
LIST_STAGE = "contact"
_BEGINNING = "<!doctype html><!-- safelight batch "
_STYLE = """
body{margin:24px;background:#181818;color:#e8e8e8;font:15px/1.4 system-ui,sans-serif}
h1{font-size:20px;font-weight:600}h2{font-size:16px;font-weight:600;margin-top:32px}
table{border-spacing:8px}th{font-weight:500;max-width:256px}tbody th{text-align:right}
td{vertical-align:middle;text-align:center}
ul{display:flex;flex-wrap:wrap;gap:16px;padding:0;list-style:none}li{width:256px}
img,video{max-width:256px;max-height:256px}img{cursor:zoom-in}
p{margin:4px 0;overflow-wrap:anywhere}.aside{color:#a8a8a8}
dialog{border:0;padding:0;background:#000;color:inherit;max-width:none;max-height:none}
dialog::backdrop{background:#000d}
dialog img{display:block;max-width:96vw;max-height:90vh;cursor:zoom-out}
dialog p{padding:8px}
"""
_SCRIPT = """
const shown=document.querySelector('dialog'),large=shown.querySelector('img');
for(const img of document.querySelectorAll('[data-of]'))
  img.src=document.getElementById(img.dataset.of).src;
document.addEventListener('click',event=>{
  if(shown.open){shown.close();return}
  const img=event.target.closest('img');
  if(!img)return;
  large.src=img.src;shown.querySelector('p').textContent=img.alt;shown.showModal()});
"""


def check_page(file: Path, where: str) -> None:
    """Refuse a place for a page before anything is made for it.

    Raises:
        ForbiddenPathError: its folder is none, or something lies there that is no batch's page.
    """
    check_file(file, where, "page", lambda there: _begins(there, _BEGINNING))


def write_page(report: BatchReport, manifest: Manifest | None, file: Path) -> Path:
    """Write the page of a batch, whole or not at all.

    It takes the place of a page of the same batch; anything else that lies there stays.

    Args:
        report: of the batch.
        manifest: of its run, whose sheets say what stands where; None shows all in a row.
        file: where.

    Returns:
        Where it lies: `file`, or beside it with -2, -3 and so on.

    Raises:
        InvalidFieldValueError: the pictures are larger than a browser opens.
    """
    results = [result for one in report.each() for result in outcome_results(report, one)]
    size = sum({result.ref.sha256: result.ref.bytes for result in results}.values())
    if size > MOST_BYTES:
        raise InvalidFieldValueError(
            f"the results of the batch have {size} bytes, and a page holds at most {MOST_BYTES}",
            "take a zip, or draw smaller pictures",
        )
    own = f"{_BEGINNING}{escape(report.batch)} -->"
    texts = chain([own], _page(report, manifest, results))
    return write_file(file, map(str.encode, texts), lambda there: _begins(there, own))


def _begins(file: Path, text: str) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(len(text.encode())) == text.encode()
    except OSError:
        return False


def _page(
    report: BatchReport, manifest: Manifest | None, results: Sequence[Result]
) -> Iterator[str]:
    script = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none';img-src data:;media-src data:;style-src 'unsafe-inline';"
        f"script-src 'sha256-{script}'"
    )
    title = escape(f"{report.flow}, {report.batch}")
    yield (
        f'<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1>"
    )
    shown = _Pictures(results)
    grids = [entry for entry in (manifest.stages if manifest else ()) if _is_grid(entry)]
    for entry in grids:
        yield from _grid(entry, shown)
    if not grids:
        yield "<ul>"
        for digest, text in _listed(manifest, results):
            yield "<li>"
            yield from shown.tag(digest)
            yield f"<p>{escape(text)}</p></li>"
        yield "</ul>"
    missing = [one for one in report.each() if not one.results]
    for one in missing:
        why = f", {one.error.code}: {one.error.problem}" if one.error else ""
        yield f'<p class="aside">{escape(f"{one.where}: {one.state}{why}")}</p>'
    yield f"<dialog><img alt=''><p></p></dialog><script>{_SCRIPT}</script></html>"


def _listed(manifest: Manifest | None, results: Sequence[Result]) -> list[tuple[str, str]]:
    """Pictures with their words; of a grid that is laid out row by row, the value of each."""
    found: list[tuple[str, str]] = []
    of_grid = manifest is not None and manifest.parameters.get("grid")
    for entry in manifest.stages if manifest is not None and of_grid else ():
        captions = entry.parameters.get("captions")
        if entry.stage_type == LIST_STAGE and isinstance(captions, list):
            found += zip(entry.sources, map(str, captions), strict=True)
    return found or [(result.ref.sha256, _said(result)) for result in results]


def _is_grid(entry: StageEntry) -> bool:
    return entry.stage_type == GRID_STAGE and entry.status in ("done", "cached")


def _grid(entry: StageEntry, shown: "_Pictures") -> Iterator[str]:
    """A sheet as a table: its record says what stands where."""
    given = cast("Mapping[str, list[JsonValue]]", entry.parameters)
    columns, rows = given["columns"], given["rows"]
    yield f"<h2>{escape(str(entry.parameters.get('title') or ''))}</h2><table><thead><tr><th></th>"
    yield "".join(f"<th>{escape(str(label))}</th>" for label in columns)
    yield "</tr></thead><tbody>"
    for row, label in enumerate(rows):
        yield f"<tr><th>{escape(str(label))}</th>"
        for cell in given["cells"][row * len(columns) : (row + 1) * len(columns)]:
            yield "<td>"
            for at in cast("list[int]", cell):
                yield from shown.tag(entry.sources[at])
            yield "</td>"
        yield "</tr>"
    yield "</tbody></table>"


def _said(result: Result) -> str:
    words = str(result.facts.get("prompt") or result.facts.get("name") or "")
    seed = result.facts.get("seed")
    return words if seed is None else f"{words} (seed {seed})"


class _Pictures:
    """Each picture stands in the file once, wherever it is shown."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._known = {result.ref.sha256: result for result in results}
        self._there: set[str] = set()

    def tag(self, digest: str) -> Iterator[str]:
        result = self._known.get(digest)
        if result is None:  # its request was run again since the sheet was laid out
            yield "<p>not there any more</p>"
            return
        said, ref = escape(_said(result), quote=True), result.ref
        if digest in self._there:
            yield f'<img data-of="p{digest}" alt="{said}" title="{said}">'
            return
        if ref.kind == "image":
            self._there.add(digest)
            yield f'<img id="p{digest}" alt="{said}" title="{said}" src="'
            yield from _data(ref)
            yield '">'
        elif ref.kind == "video":
            yield f'<video controls loop muted title="{said}" src="'
            yield from _data(ref)
            yield '"></video>'
        else:
            yield f"<p>{escape(ref.uri)}</p>"


def _data(ref: ArtifactRef) -> Iterator[str]:
    path = current_store().fetch(ref)
    yield f"data:{ref.media_type};base64,"
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield standard_b64encode(chunk).decode()
