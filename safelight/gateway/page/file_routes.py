"""Files for the page: thumbnails by content, results whole, a look at what was uploaded."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from safelight.characters import keeping
from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.gallery.index import gallery
from safelight.gallery.thumbnails import ON_WALL, picture_of, shown_whole
from safelight.gateway.files import FOR_EVER, download
from safelight.gateway.job_routes import Sha256
from safelight.gateway.thumbnails import thumbnail_answer
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.store import SCHEME, current_store
from safelight.weights.registry import registry

router = APIRouter(prefix="/page", include_in_schema=False)
_LINK = re.compile(r"store:((?:outputs|uploads)/[0-9a-f]{2}/([0-9a-f]{64})(\.\w{1,5}))")
_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}
KnownTag = Annotated[str | None, Header(alias="If-None-Match")]


@router.get("/thumbnails/{sha256}")
def read_thumbnail(sha256: Sha256, known_tags: KnownTag = None) -> Response:
    """A small picture of a file that a run made."""
    return thumbnail_answer(gallery().find(sha256).ref, ON_WALL, known_tags)


@router.get("/files/{sha256}")
def read_file(
    sha256: Sha256,
    wanted_range: Annotated[str | None, Header(alias="Range")] = None,
    known_tags: KnownTag = None,
) -> Response:
    """A file that a run made, also where the server has forgotten the run."""
    run = gallery().find(sha256).run
    try:
        job_id = UUID(run)
    except ValueError as error:
        raise MissingFileError(f"{run} is no id of a run", "look at its manifest") from error
    return download(job_id, sha256, None, wanted_range, known_tags)


@router.get("/peek")
def peek(link: Annotated[str, Query(max_length=200)], known_tags: KnownTag = None) -> Response:
    """A small picture of what a `store:` link names, for forms."""
    return thumbnail_answer(_named(link), ON_WALL, known_tags)


@router.get("/whole")
def read_whole(link: Annotated[str, Query(max_length=200)]) -> Response:
    """The picture that a `store:` link names as browsers show it, for painting over it."""
    headers = {"Cache-Control": FOR_EVER, "Content-Security-Policy": "sandbox"}
    return Response(shown_whole(_named(link)), media_type="image/png", headers=headers)


def _named(link: str) -> ArtifactRef:
    named = _LINK.fullmatch(link)
    if named is None:
        raise ForbiddenPathError(
            f"{link[:80]!r} is no link of an upload or a result", "take that of an upload"
        )
    key, sha256, extension = named.groups()
    size = current_store().backend.size(key)
    if size is None:
        raise MissingFileError(f"nothing is stored at {key}", "upload it again")
    media_type = _TYPES.get(extension, "application/octet-stream")
    return ArtifactRef(uri=SCHEME + key, sha256=sha256, media_type=media_type, bytes=size)


@router.get("/characters/{character}/{sha256}")
def read_reference(character: str, sha256: Sha256) -> Response:
    """A small picture of a reference picture; not kept, so that it goes with the character."""
    found = keeping.find(character)
    picture = next((each for each in found.pictures if each.sha256 == sha256), None)
    if picture is None:
        raise MissingFileError(f"{found.name} has no picture {sha256[:12]}", "load the page again")
    small = picture_of(current_store().fetch(found.ref(picture)))
    headers = {"Cache-Control": "private, max-age=300", "Content-Security-Policy": "sandbox"}
    return Response(small, media_type="image/webp", headers=headers)


@router.get("/models/{model_type}/{name:path}/preview")
def read_model_preview(model_type: str, name: str) -> Response:
    """The picture that lies beside a model."""
    preview = next(
        (
            model.file_path.parent / str(model.metadata["preview"])
            for model in registry().list_models(model_type)
            if model.name == name and model.metadata.get("preview")
        ),
        None,
    )
    if preview is None or not preview.is_file():
        raise MissingFileError(f"there is no picture of {name[:80]}", "put one beside the model")
    answer = Response(picture_of(preview), media_type="image/webp")
    answer.headers["Cache-Control"] = "private, max-age=300"
    return answer
