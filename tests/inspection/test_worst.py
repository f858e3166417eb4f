"""The clips that the report links to, in a finished run and in a real browser."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow.parquet as pq
import pytest

from mitfrnet.report.worst import page_name
from tests.helpers.browser import needs_browser, opened, sideways, violations
from tests.helpers.inspected_project import CORPUS, HOSTILE, UTTERANCE
from tests.helpers.running import run_stage, write_params

pytestmark = pytest.mark.slow

INSPECTED = "report/inspect/mine"
IDS = [UTTERANCE, "quiet/01"]


def run(folder, stage, **item):
    process = run_stage(folder, stage, **item)
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory):
    """Return a copy of the project with its report."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(project, folder)
    run(folder, "inspect", corpus="mine")
    run(folder, "report")
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def change(folder, **changes):
    write_params(folder, corpora={"mine": CORPUS}, grid__corpora=["mine"], **changes)


def clips(folder):
    found = json.loads((folder / INSPECTED / "clips.json").read_text())
    return {clip["utterance_id"]: clip for clip in found}


def pages(folder):
    return {path.name: path.read_bytes() for path in (folder / INSPECTED).glob("*.html")}


def test_each_of_the_worst_clips_has_its_words_and_a_page(finished):
    found = clips(finished)
    assert set(found) == set(IDS)
    assert HOSTILE in found[IDS[0]]["transcript"]
    assert found[IDS[1]]["transcript"] == ""
    assert set(pages(finished)) == {page_name(i) for i in IDS}
    assert all(len(page) < 1_000_000 for page in pages(finished).values())


def test_a_rerun_gives_the_same_bytes_and_removes_what_is_no_longer_named(copy):
    before = pages(copy)
    (copy / INSPECTED / "old.html").write_text("")
    run(copy, "inspect", corpus="mine")
    assert pages(copy) == before


def test_fewer_clips_have_fewer_pages(copy):
    change(copy, report__worst__clips=1)
    run(copy, "inspect", corpus="mine")
    (clip,) = clips(copy).values()
    assert set(pages(copy)) == {clip["page"]}


def test_pages_can_be_turned_off_and_the_report_then_links_to_none(copy):
    change(copy, report__worst__pages=False)
    run(copy, "inspect", corpus="mine")
    run(copy, "report")
    assert pages(copy) == {}
    assert set(clips(copy)) == set(IDS)
    report = (copy / "report/index.html").read_text()
    assert "inspect/mine" not in report
    assert "mitfrnet inspect mine/quiet/01" in report
    process = run_stage(copy, "inspect", spy=True, corpus="mine")
    assert "cv2" not in process.stderr  # nor anything else that decodes


def test_a_clip_without_media_has_no_page(copy):
    """As one of a corpus of features, of which the manifest names no file."""
    path = copy / "data/mine/manifest.parquet"
    manifest = pq.read_table(path)
    rows = manifest.to_pylist()
    for row in rows:
        row["path"] = None if row["utterance_id"] == "quiet/01" else row["path"]
    pq.write_table(type(manifest).from_pylist(rows, schema=manifest.schema), path)
    process = run_stage(copy, "inspect", corpus="mine")
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stderr.count("warning: mine: 1 of the 2 worst clips have no file") == 1
    assert set(pages(copy)) == {page_name(IDS[0])}
    shutil.rmtree(copy / "raw")
    run(copy, "inspect", corpus="mine")
    run(copy, "report")
    assert pages(copy) == {}
    assert "inspect/mine" not in (copy / "report/index.html").read_text()


def test_a_clip_that_cannot_be_decoded_stops_nothing(copy):
    manifest = pq.read_table(copy / "data/mine/manifest.parquet").to_pylist()
    for row in manifest:
        if row["utterance_id"] in IDS:
            (copy / "raw/mine" / row["path"]).write_bytes(b"no clip")
    run(copy, "inspect", corpus="mine")
    assert set(clips(copy)) == set(IDS)


def test_masks_of_a_rate_that_left_the_grid_are_not_looked_at(copy):
    (copy / "data/mine/masks/0.9.parquet").write_bytes(b"of other tensors")
    run(copy, "inspect", corpus="mine")
    assert set(pages(copy)) == {page_name(i) for i in IDS}


class TestBrowser:
    pytestmark = needs_browser

    @pytest.mark.parametrize("width", [1440, 390])
    @pytest.mark.parametrize("dark", [False, True])
    def test_links_open_and_lead_back(self, running, finished, width, dark):
        report = finished / "report/index.html"
        with opened(running, report, width=width, dark=dark) as page:
            assert sideways(page) == 0
            assert violations(page) == []
            names = page.locator("#predictions th.id a").all_inner_texts()
            assert sorted(names) == sorted(IDS)
            for name in IDS:
                page.get_by_role("link", name=name, exact=True).click()
                assert unquote(urlparse(page.url).path).endswith(f"{INSPECTED}/{page_name(name)}")
                assert page.inner_text("h1") == name
                assert page.locator("#mask option:checked").inner_text() == "rate 0.3, as stored"
                assert sideways(page) == 0
                assert violations(page) == []
                page.get_by_role("link", name="Back to the report").click()
                assert page.url == f"{report.as_uri()}#predictions"
            assert page.complaints == []
            assert {urlparse(url).scheme for url in page.requests} == {"file"}

    def test_every_link_of_the_report_leads_somewhere(self, running, finished):
        report = finished / "report/index.html"
        with opened(running, report) as page:
            links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
            own = [urlparse(url) for url in links if url.startswith("file:")]
            assert any("/inspect/" in url.path for url in own)
            for url in own:
                assert Path(unquote(url.path)).is_file()
                if unquote(url.path) == str(report.resolve()) and url.fragment:
                    assert page.locator(f"#{url.fragment}").count() == 1

    def test_what_the_page_opens_with_is_what_the_report_says(self, running, finished):
        clip = clips(finished)[IDS[0]]
        with opened(running, finished / INSPECTED / clip["page"]) as page:
            assert page.inner_text("#value").startswith(f"{float(clip['prediction']):+.2f}")

    def test_a_printed_page_has_no_link_back(self, running, finished):
        with opened(running, finished / INSPECTED / page_name(IDS[0])) as page:
            assert page.locator(".back").is_visible()
            page.emulate_media(media="print")
            assert not page.locator(".back").is_visible()
