"""Headless Chromium for tests of pages, which records console messages and requests."""

import importlib.util
import shutil
import time
from contextlib import contextmanager

import pytest

_BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = [
    "--no-sandbox",  # containers allow no sandbox
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]

needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(_BROWSER is None, reason="no Chromium on the PATH"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("playwright", "axe_playwright_python")),
        reason="no playwright and axe-playwright-python (pip install -e '.[dev]')",
    ),
]


@contextmanager
def browser():
    """Give a running Chromium, for tests to share: starting one takes a second."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=_BROWSER, args=_FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running, path, *, width=1440, height=1000, dark=False, script=True, touch=False):
    """Give the page at `path` in a browser of that kind.

    `page.complaints` holds every error and warning of its console. `page.requests` holds every URL
    that it requested, except its own and those with their data inside.
    """
    context = running.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        has_touch=touch,
        offline=True,
    )
    page = context.new_page()
    page.complaints, page.requests = [], []
    own = path.resolve().as_uri()
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None,
    )
    page.on(
        "request",
        lambda r: (
            None
            if r.url == own or r.url.startswith(("data:", "blob:"))
            else page.requests.append(r.url)
        ),
    )
    try:
        page.goto(own)
        yield page
    finally:
        context.close()


def until(page, expression, seconds=20):
    """Wait until an expression is true, and return it; Playwright's own wait needs `eval`."""
    end = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(20)
    return value


def sideways(page):
    """Return how many pixels wider the page is than its window."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def violations(page):
    """Return the serious and critical problems that axe-core finds, one line each."""
    from importlib.resources import files

    source = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)  # the page's policy would forbid a script element
    problems = page.evaluate("axe.run().then(r => r.violations)")
    return [
        f"{v['id']}: {node['html'][:120]}"
        for v in problems
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
