"""The browser of these tests."""

from tests.browsing import browser  # noqa: F401
