"""The room Gallery: everything that runs have made, found by words, and how each came about."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from safelight.audit.log import record
from safelight.errors import MissingFileError, PipelineError
from safelight.gallery.index import Index, gallery
from safelight.gallery.rows import Filed
from safelight.gallery.searching import LONGEST, beside, cursor_to, found, parse, place_of
from safelight.gallery.thumbnails import forget_thumbnails
from safelight.gateway.job_routes import Sha256
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.page.shelf import title_of
from safelight.gateway.page.words import say
from safelight.provenance.manifest import Failure, Manifest, StageEntry, load_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.ratings import BEST, NONE, REJECTED, rate
from safelight.store.stars import keep, let_go
from safelight.store.store import current_store, key_of

router = APIRouter(prefix="/gallery", include_in_schema=False, route_class=PageRoute)
Words = Annotated[str, Query(max_length=LONGEST)]
Cursor = Annotated[str | None, Query(max_length=120)]
Place = Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")]
CULLED = "kind:image"
"""What is looked at one by one."""
SAVED = ("kept:yes", "rating:>3", "kind:video", "since:today", "since:1w", "rating:rejected")
"""Searches that stand ready."""


class Starred(BaseModel):
    """Whether a file is to be kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    star: bool


class Judged(BaseModel):
    """What somebody thinks of a file; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    star: bool | None = None
    rating: Annotated[int, Field(ge=REJECTED, le=BEST)] | None = None


@dataclass(frozen=True)
class Day:
    """Files of one day."""

    title: str
    files: list[Filed]


@dataclass(frozen=True)
class Step:
    """One step of how a file came about."""

    entry: StageEntry
    results: list[ArtifactRef]


@router.get("")
def show(
    request: Request,
    q: Words = "",
    steps: bool = False,
    stacked: bool = False,
    file: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")] = "",
) -> Response:
    """The wall, with the drawer of the file that the address names."""
    index = gallery()
    index.refresh(wait=index.is_empty())
    drawer, failure = None, None
    if file:
        try:
            drawer = _drawer(index, file)
        except MissingFileError as error:
            failure = Failure.of(error)
    return shown_page(
        request,
        "gallery",
        "gallery",
        drawer=drawer,
        failure=failure,
        saved=SAVED,
        part=False,
        **_wall(index, q, None, "", steps=steps, stacked=stacked),
    )


@router.get("/wall")
def wall(
    request: Request,
    q: Words = "",
    cursor: Cursor = None,
    steps: bool = False,
    stacked: bool = False,
    day: str = "",
) -> Response:
    """A page of the wall, 100 files at a time."""
    index = gallery()
    if cursor is None:
        index.refresh(wait=False)
    found_now = _wall(index, q, cursor, day[:40], steps=steps, stacked=stacked)
    return shown_part(request, "wall", status=200, part=True, **found_now)


@router.get("/{sha256}/drawer")
def drawer(sha256: Sha256, request: Request) -> Response:
    """One file: how it was made, and what can be done with it."""
    return shown_part(request, "file", drawer=_drawer(gallery(), sha256))


@router.get("/compare")
def compare(request: Request, a: str, b: str) -> Response:
    """Two files over one another."""
    index = gallery()
    return shown_part(request, "compare", first=index.find(a), second=index.find(b))


@router.post("/{sha256}/star")
def star(sha256: Sha256, wanted: Starred, request: Request) -> Response:
    """Keep a file against retention, or no longer."""
    index, store = gallery(), current_store()
    index.find(sha256)
    (keep if wanted.star else let_go)(store, sha256)
    store.settle()
    index.mark(sha256, star=wanted.star)
    return shown_part(request, "file", drawer=_drawer(index, sha256))


@router.post("/{sha256}/judge")
def judge(sha256: Sha256, judged: Judged) -> JSONResponse:
    """Rate a file, reject it, or keep it; how it stands then."""
    index, store = gallery(), current_store()
    index.find(sha256)
    if judged.star is not None:
        (keep if judged.star else let_go)(store, sha256)
        index.mark(sha256, star=judged.star)
    if judged.rating is not None:
        rate(store, sha256, judged.rating)
        index.rate(sha256, judged.rating)
    store.settle()
    filed = index.find(sha256)
    return JSONResponse({"sha256": sha256, "star": filed.star, "rating": filed.rating})


@router.get("/cull")
def cull(request: Request, q: Words = "", at: Place = "") -> Response:
    """One file after the other, to be kept or rejected by keys."""
    index = gallery()
    index.refresh(wait=index.is_empty())
    return shown_page(request, "cull", "gallery", **_culled(index, q, at))


@router.get("/cull/part")
def cull_part(request: Request, q: Words = "", at: Place = "") -> Response:
    """The same with another file."""
    return shown_part(request, "cull", status=200, **_culled(gallery(), q, at))


@router.delete("/{sha256}")
def delete(sha256: Sha256, request: Request) -> Response:
    """Delete a file and its thumbnail; the manifest goes on saying that it was made."""
    index, store = gallery(), current_store()
    filed = index.find(sha256)
    record("artifact.deleted", sha256, {"job": filed.run, "bytes": filed.ref.bytes})
    store.backend.delete(key_of(filed.ref))
    forget_thumbnails(sha256, store)
    let_go(store, sha256)
    rate(store, sha256, NONE)
    index.forget(sha256)
    return shown_part(request, "deleted", file=filed)


def _wall(
    index: Index, q: str, cursor: str | None, day: str, *, steps: bool, stacked: bool
) -> dict[str, object]:
    about: dict[str, object] = {"q": q, "steps": steps, "stacked": stacked, "first": cursor is None}
    try:
        search = parse(q, steps=steps)
        page = found(index, search, cursor, stacked=stacked)
    except PipelineError as error:
        nothing: dict[str, object] = {"days": [], "total": 0, "next": None, "last": "", "many": {}}
        return {**about, **nothing, "again": "", "before": "", "refused": error}
    days = [*_days(page.files, day)]
    return {
        **about,
        "days": days,
        "total": index.count(search.where, search.values) if cursor is None else 0,
        "many": page.many,
        "next": page.next,
        "again": cursor_to(page.files[0]) if page.files else "",
        "before": day,
        "last": _title(page.files[-1].at) if page.files else "",
        "refused": None,
    }


def _culled(index: Index, q: str, at: str) -> dict[str, object]:
    """The file of a cull, those beside it, and how many are undecided.

    Raises:
        InvalidFieldValueError: the words are no search.
        MissingFileError: there is no file of this sha256.
    """
    search = parse(f"{q} {CULLED}")
    undecided = f"{search.where} AND star = 0 AND rating = {NONE}"
    if at:
        filed = index.find(at)
    else:
        waiting = index.select(undecided, search.values, 1)
        first = waiting or index.select(search.where, search.values, 1)
        filed = first[0] if first else None
    before, after = beside(index, search, filed) if filed else (None, None)
    return {
        "q": q,
        "file": filed,
        "before": before,
        "after": after,
        "place": place_of(index, search, filed) if filed else 0,
        "total": index.count(search.where, search.values),
        "undecided": index.count(undecided, search.values),
        "ratings": range(1, BEST + 1),
    }


def _days(files: list[Filed], before: str) -> Iterator[Day]:
    """By the day on which they were made; the first needs no title where it was said before."""
    for title, some in groupby(files, lambda each: _title(each.at)):
        yield Day("" if title == before else title, list(some))


def _title(at: float) -> str:
    day = datetime.fromtimestamp(at, UTC).date()
    past = (datetime.now(UTC).date() - day).days
    return say("day.today") if past == 0 else say("day.yesterday") if past == 1 else f"{day}"


def _drawer(index: Index, sha256: str) -> dict[str, object]:
    filed = index.find(sha256)
    try:
        manifest: Manifest | None = load_manifest(filed.run)
    except PipelineError:  # it was removed since: the file is there
        manifest = None
    family = index.of_run(filed.run)
    at = next((n for n, each in enumerate(family) if each.sha256 == sha256), 0)
    line = [*_line(manifest, sha256)] if manifest else []
    before = next((ref for step in reversed(line[:-1]) for ref in step.results), None)
    if before is None and manifest is not None:
        before = next((ref for ref in manifest.inputs.values() if ref.kind == "image"), None)
    indexed = {each.sha256 for each in family}
    return {
        "file": filed,
        "title": title_of(filed.flow),
        "manifest": manifest,
        "facts": manifest.model_dump_json(indent=1, exclude={"stages"}) if manifest else "",
        "line": line,
        "inputs": dict(manifest.inputs) if manifest else {},
        "before": before if filed.kind == "image" and before and before.kind == "image" else None,
        "family": family,
        "place": at,
        "indexed": indexed,
    }


def _line(manifest: Manifest, sha256: str) -> Iterator[Step]:
    """The stages that led to a file, from the first to the one that made it."""
    made = {ref.sha256: entry for entry in manifest.stages for ref in entry.results}
    wanted, taken = [sha256], list[StageEntry]()
    while wanted:
        entry = made.get(wanted.pop())
        if entry is not None and all(entry is not other for other in taken):
            taken.append(entry)
            wanted += entry.sources
    for entry in manifest.stages:
        if any(entry is other for other in taken):
            yield Step(entry, [ref for ref in entry.results if ref.kind in ("image", "video")])
