"""A bucket whose links open."""

from tests.store.conftest import moto  # noqa: F401
