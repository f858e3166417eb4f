import pytest

import pipeline  # noqa: F401 - sets how threads wait, before any test imports torch
from tests.browser import browser, opened


@pytest.fixture(scope="session")
def running():
    """Return a browser; only for tests that are marked `needs_browser`."""
    with browser() as running:
        yield running


@pytest.fixture
def page(running, path):
    """Return the page at the fixture `path`, of which nothing may complain or ask for more."""
    with opened(running, path) as page:
        yield page
        assert page.complaints == []
        assert page.requests == []
