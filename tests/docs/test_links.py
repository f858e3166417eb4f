"""Links between the pages lead somewhere, and the files that the pages name exist."""

import re

import pytest

from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = [page for page in PAGES if page.name != "extractors.md"]  # it names other projects' files
FOLDERS = ("", "mitfrnet", "mitfrnet/presets")  # CONTRIBUTING.md gives paths relative to these


def prose(page):
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page):
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", OWN, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    for path in re.findall(r"`([\w/]+/\w+\.(?:py|css)|\w+\.yaml)(?:`|::)", prose(page)):
        assert any((ROOT / folder / path).is_file() for folder in FOLDERS), path
