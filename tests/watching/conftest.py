"""A bucket to watch."""

from tests.store.conftest import moto  # noqa: F401
