import pytest

import pipeline  # noqa: F401 - sets how threads wait, before any test imports torch
from tests.helpers.browser import browser, opened


@pytest.fixture
def s3(monkeypatch):
    """Return an S3 server, that of this process and of those it starts, empty at first."""
    for package in ("s3fs", "moto"):
        pytest.importorskip(package, reason=f"needs {package} (pip install 'mitfrnet[dev]')")
    from tests.helpers.s3_server import clean_environment, serving

    with serving() as server, clean_environment(monkeypatch, server):
        yield server


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
