"""All rooms of the page, and the static files that they load."""

from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from safelight.gateway.page import (
    batch_rooms,
    create_routes,
    file_routes,
    frame_routes,
    gallery_rooms,
    job_rooms,
    machine_rooms,
    people_rooms,
)
from safelight.gateway.page.rendering import STATIC, static_file

router = APIRouter(include_in_schema=False)


@router.get(f"{STATIC}/{{name:path}}")
def read_static(
    name: str, known_tag: Annotated[str | None, Header(alias="If-None-Match")] = None
) -> Response:
    """Style, a module or a drawing."""
    return static_file(name, known_tag)


ROOMS = (
    frame_routes,
    file_routes,
    create_routes,
    job_rooms,
    gallery_rooms,
    batch_rooms,
    people_rooms,
    machine_rooms,
)
for room in ROOMS:
    router.include_router(room.router)
