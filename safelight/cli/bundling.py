"""`safelight doctor --bundle`: the file that the page's System room offers, written here."""

import os
from contextlib import nullcontext
from pathlib import Path

from safelight.cli.addresses import configured_api_url
from safelight.cli.server import prefect_api
from safelight.client.asking import patient_client
from safelight.errors import InvalidFieldValueError
from safelight.private import make_file

PATIENCE_SECONDS = 5.0
"""A server that is away is one of the facts."""


def write_bundle(path: Path) -> None:
    """Write what helps others to help: no keys, addresses, prompts or pictures.

    Raises:
        InvalidFieldValueError: there is such a file, or none can be made.
    """
    from safelight.gateway.page.machine_rooms import diagnostics_text
    from safelight.gateway.shared import shared_by

    configured = configured_api_url()
    here = prefect_api() if configured is None else nullcontext()
    with here, patient_client(PATIENCE_SECONDS) as client:
        text = diagnostics_text(shared_by(client))
    try:
        handle = make_file(path)
    except OSError as error:
        raise InvalidFieldValueError(
            f"--bundle is {str(path)!r}: {error.strerror}", "name a new file in a folder of yours"
        ) from error
    with os.fdopen(handle, "w") as file:
        file.write(text)
