import pytest

import pipeline  # noqa: F401 - sets how threads wait, before any test imports torch
from tests.helpers.browser import browser, opened
from tests.helpers.proofs import PROOFS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Fail a test that docs/fidelity.md names as proof where it would be skipped."""
    report = yield
    if report.skipped and item.nodeid.partition("[")[0] in PROOFS:
        report.outcome = "failed"
        report.longrepr = f"docs/fidelity.md names this test as proof, but: {report.longrepr}"
    return report


@pytest.fixture
def s3(monkeypatch):
    """Return an empty S3 server, which this process and those it starts use."""
    for package in ("s3fs", "moto"):
        pytest.importorskip(package, reason=f"needs {package} (pip install 'mitfrnet[dev]')")
    from tests.helpers.s3_server import clean_environment, serving

    with serving() as server, clean_environment(monkeypatch, server):
        yield server


@pytest.fixture(scope="session")
def running():
    """Return a browser, for tests marked `needs_browser`."""
    with browser() as running:
        yield running


@pytest.fixture
def page(running, path):
    """Return the page at the fixture `path`; it may neither log an error nor request a file."""
    with opened(running, path) as page:
        yield page
        assert page.complaints == []
        assert page.requests == []
