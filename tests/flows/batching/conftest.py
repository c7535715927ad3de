"""A bucket for results."""

from tests.store.conftest import moto  # noqa: F401
