"""The table of a batch on its run's page: how each request ended."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from prefect.artifacts import create_markdown_artifact

from flows.batching.laying_out import caption
from flows.batching.requests import Request
from safelight.client.markdown import code, table
from safelight.client.page import on_page
from safelight.media.previews import picture_preview
from safelight.media.sheets import fitted
from safelight.provenance.batches import BatchOutcome
from tasks.base.keeping import load_image

ROWS_OF_PAGE = 2000
"""Rows of a table; those of more requests go on in further ones."""
ROWS_WITH_PICTURES = 60
"""Rows of the table that show their picture; Prefect keeps it all in its database."""
THUMBNAIL, THUMBNAIL_CHARACTERS = 96, 8000
MOST_CHOSEN = 600
"""Characters of what was chosen for a prompt; the report has all."""
HEADINGS = ("request", "state", "seconds", "picture", "error", "run")


def publish_tables(requests: Sequence[Request], outcomes: Mapping[int, BatchOutcome]) -> None:
    """Leave a table with one row a request on the run's page; of many, in pages.

    It is Markdown: the newer UI of Prefect shows the pictures of a table artifact as characters.
    """
    pages = -(-len(requests) // ROWS_OF_PAGE)
    about = "How each request of the batch ended"
    for page in range(pages):
        some = requests[page * ROWS_OF_PAGE : (page + 1) * ROWS_OF_PAGE]
        ended = {one.number: outcomes.get(one.number) for one in some}
        shown = _table(some, ended, 0 if page else ROWS_WITH_PICTURES)
        key = f"requests-{page + 1}" if page else "requests"
        told = f"{about}, page {page + 1} of {pages}" if pages > 1 else about
        on_page(partial(create_markdown_artifact, shown, key=key, description=told))


def _table(
    requests: Sequence[Request], outcomes: Mapping[int, BatchOutcome | None], pictures: int
) -> str:
    left = pictures
    chose = any(outcome.unfolded for outcome in outcomes.values() if outcome is not None)
    rows: list[tuple[str, ...]] = []
    for request in requests:
        outcome = outcomes[request.number]
        picture = outcome.results[0] if outcome and outcome.results else None
        shown = ""
        if picture is not None and picture.kind == "image" and left > 0:
            left -= 1
            small = fitted(load_image(picture), THUMBNAIL)
            shown = f"![]({picture_preview(small, longest=THUMBNAIL_CHARACTERS)})"
        elif picture is not None:
            shown = f"`{picture.uri}`"
        rows.append(
            (
                code(f"{request.where}: {caption(request, outcome)}"),
                _state(outcome),
                f"{outcome.seconds:.1f}" if outcome else "",
                shown,
                code("; ".join(_errors(outcome))),
                code(outcome.flow_run_id) if outcome else "",
                *((code(_chosen(outcome)),) if chose else ()),
            )
        )
    return table((*HEADINGS, "chosen") if chose else HEADINGS, rows)


def _chosen(outcome: BatchOutcome | None) -> str:
    """Templates of its prompts, and what was chosen for each of their choices."""
    told: list[str] = []
    for one in outcome.unfolded if outcome else ():
        took = (f"{each.source[:80]} {', '.join(each.took)[:80]}" for each in one.choices)
        told.append(f"{one.template[:200]}: {'; '.join(took)}"[:MOST_CHOSEN])
    return " / ".join(told)


def _state(outcome: BatchOutcome | None) -> str:
    if outcome is None:
        return "unfinished"
    return f"{outcome.state} before" if outcome.reused else outcome.state


def _errors(outcome: BatchOutcome | None) -> Iterator[str]:
    if outcome is not None and outcome.error is not None:
        yield f"{outcome.error.code}: {outcome.error.problem}"
        yield f"Fix: {outcome.error.remedy}"
