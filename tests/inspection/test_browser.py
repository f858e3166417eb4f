"""The page in a real browser."""

import math
from dataclasses import replace

import pytest

from mitfrnet.inspection.inspect import inspect
from mitfrnet.inspection.page import write_page
from mitfrnet.inspection.predictions import ModelPredictions
from tests.helpers.browser import needs_browser, opened, sideways, until, violations
from tests.helpers.clips import tone, write_clip
from tests.helpers.inspected_project import HOSTILE, MODEL, UTTERANCE
from tests.helpers.paths import ROOT

CLIPS = ROOT.parent / "shared" / "clips" / "Raw"

pytestmark = needs_browser


@pytest.fixture(scope="module")
def path(view, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(view, path)
    return path


def cursor(page):
    return float(page.evaluate("document.getElementById('lanes').style.getPropertyValue('--at')"))


def value(page):
    return page.inner_text("#value")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_is_accessible(running, path, width, dark):
    with opened(running, path, width=width, dark=dark) as page:
        page.click("summary")
        assert sideways(page) == 0
        assert violations(page) == []
        page.select_option("#mask", label="rate 0.5")
        page.uncheck("input[value=visual]")
        assert violations(page) == []
        # The rule `color-scheme` reaches the page itself, not only its variables.
        light = (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert light != dark
        assert page.complaints == []
        assert page.requests == []


def test_it_is_small_and_names_break_nothing(page, path):
    assert path.stat().st_size < 1_000_000  # 1.8 s; the bound is 5 MB for 10 s
    assert page.inner_text("h1") == UTTERANCE
    assert HOSTILE in page.inner_text("header")
    assert page.title() == f"{UTTERANCE}: inspection"
    assert page.locator('img[src="x"]').count() == 0


def test_playing_moves_the_cursor(page):
    until(page, "document.getElementById('media').readyState >= 3")
    assert cursor(page) == 0
    page.click("#play")
    until(page, "Number(document.getElementById('lanes').style.getPropertyValue('--at')) > .2")
    assert page.inner_text("#play") == "Pause"
    page.click("#play")
    until(page, "document.getElementById('play').textContent === 'Play'")
    page.wait_for_timeout(50)  # the last frame of the cursor
    media, duration = page.evaluate(
        "[document.getElementById('media').currentTime, +document.getElementById('seek').max]"
    )
    assert math.isclose(cursor(page) * duration, media, abs_tol=0.06)
    page.click("#play")  # to the end, from where it can start again
    until(page, "document.getElementById('media').ended")
    until(page, "document.getElementById('play').textContent === 'Play'")
    assert cursor(page) > 0.9


def test_the_axis_seeks_by_mouse_and_by_keyboard(page):
    until(page, "document.getElementById('media').readyState >= 1")
    box = page.locator(".lane.wave").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 5)
    page.mouse.down()
    assert cursor(page) == pytest.approx(0.25, abs=0.01)
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 5)
    page.mouse.up()
    assert cursor(page) == pytest.approx(0.75, abs=0.01)
    page.mouse.move(box["x"], box["y"] + 5)
    assert cursor(page) == pytest.approx(0.75, abs=0.01)
    line, lane = (page.locator(s).bounding_box() for s in (".cursor", ".lane.wave"))
    assert line["x"] + 1 == pytest.approx(lane["x"] + 0.75 * lane["width"], abs=2)
    before = page.get_attribute("#still", "alt")
    page.focus("#seek")
    page.keyboard.press("Home")
    assert cursor(page) == 0
    assert page.get_attribute("#still", "alt") != before
    page.keyboard.press("ArrowRight")
    assert cursor(page) > 0
    assert "seconds" in page.get_attribute("#seek", "aria-valuetext")
    assert page.locator(".token.now").count() == 1
    until(page, "document.getElementById('media').currentTime > 0")


def test_a_tap_seeks_too(running, path):
    with opened(running, path, width=390, touch=True) as page:
        page.locator(".lane.wave").scroll_into_view_if_needed()
        box = page.locator(".lane.wave").bounding_box()
        page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 5)
        until(page, "Number(document.getElementById('lanes').style.getPropertyValue('--at')) > .4")
        assert cursor(page) == pytest.approx(0.5, abs=0.02)


def test_the_mask_changes_the_pattern_and_the_prediction(page, view):
    def shown():
        return page.eval_on_selector_all(
            ".pattern path[data-mask]",
            """paths => paths.filter(p => getComputedStyle(p).display !== 'none')
                .map(p => p.dataset.mask + p.getAttribute('d'))""",
        )

    complete, before = shown(), value(page)
    assert complete == ["0", "0"]
    page.select_option("#mask", label="rate 0.5")
    assert value(page) != before
    assert shown() != complete
    mask = next(m for m in view.masks.masks if m.name == "rate 0.5")
    for part in ("acoustic", "visual"):
        hidden, of = int((~mask.observed[part]).sum()), len(mask.observed[part])
        assert f"{hidden} of {of} steps of" in page.inner_text("#hidden")
    hidden_words = int((~mask.observed["text"]).sum())
    assert page.locator(".token.masked").count() == hidden_words > 0
    assert page.inner_text("#by-mask tr.chosen th") == "rate 0.5"
    page.locator("#chart circle").first.click()
    assert value(page) == before
    assert page.input_value("#mask") == "0"


def test_a_modality_can_be_taken_away(page, view):
    values = view.models[0].values[0]
    for box, number in (("text", 6), ("acoustic", 5), ("visual", 3)):
        page.uncheck(f"input[value={box}]")
        assert value(page).startswith(f"{values[number]:+.2f}".replace("-", "\N{MINUS SIGN}"))
        assert page.locator(f".away[data-pattern={box}]").count() == 1
        assert page.locator("#by-way tr.chosen").count() == 1
        page.check(f"input[value={box}]")
    assert page.locator("[data-pattern].away").count() == 0
    rows = page.eval_on_selector_all("#as-table tbody tr", "rows => rows.map(r => r.cells.length)")
    assert len(set(rows)) == 1


def test_it_prints_what_stands_still(page):
    page.emulate_media(media="print")
    for hidden in ("#play", "#media", ".cursor", ".skip"):
        assert not page.is_visible(hidden)
    for shown in ("#still", ".lane.wave svg", "#by-mask"):
        assert page.is_visible(shown)


def test_the_transcript_is_shown_as_captions(page):
    cues = page.evaluate(
        "[...document.getElementById('media').textTracks[0].cues].map(c => c.text)"
    )
    assert " ".join(cues).startswith("The band")


def test_without_scripts_there_is_still_the_clip(running, path):
    with opened(running, path, script=False) as page:
        assert page.locator("noscript").count() == 1
        assert page.is_visible("video")
        assert page.is_visible(".lane.wave svg")
        assert page.complaints == []


def test_what_is_missing_by_nature_cannot_be_given(running, project, tmp_path):
    write_page(inspect("mine/quiet/01", root=project), tmp_path / "page.html")
    with opened(running, tmp_path / "page.html") as page:
        assert page.is_disabled("input[value=text]")
        assert "naturally missing: empty transcript" in page.inner_text("#tracks")
        assert "words naturally missing" in page.inner_text("#hidden")
        assert value(page)
        assert page.locator("#by-way tbody tr").count() == 4  # all, two alone, nothing
        assert violations(page) == []
        assert page.complaints == []


def test_another_model_can_be_chosen(running, view, tmp_path):
    other = ModelPredictions("<b>other</b>", [[-1.5] * 8 for _ in view.masks.masks])
    write_page(replace(view, models=[*view.models, other]), tmp_path / "page.html")
    with opened(running, tmp_path / "page.html") as page:
        page.select_option("#model", label="<b>other</b>")
        assert value(page) == "\N{MINUS SIGN}1.50 negative"
        assert page.inner_text("#by-way tr:first-child td") == "\N{MINUS SIGN}1.50 negative"
        assert page.complaints == []


def test_classes_are_named(running, view, tmp_path):
    """The class is 0 with all given, and 1 as soon as anything is taken away or hidden."""
    tensors = view.subject.tensors
    scale = {"task": "classification", "classes": ["joy</script>", "anger"]}
    tensors = replace(tensors, metadata=tensors.metadata | {"scale": scale})
    subject = replace(view.subject, tensors=tensors, label=1.0)
    values = [[1.0] * 7 + [float(i > 0)] for i, _ in enumerate(view.masks.masks)]
    view = replace(view, subject=subject, models=[ModelPredictions("m", values)])
    write_page(view, tmp_path / "page.html")
    with opened(running, tmp_path / "page.html") as page:
        assert value(page) == "joy</script>"
        assert "labelled anger" in page.inner_text(".lead")
        page.uncheck("input[value=text]")
        assert value(page) == "anger"
        assert "With everything given: joy" in page.inner_text("#moved")
        assert page.is_hidden("#chart")
        assert sideways(page) == 0
        assert page.complaints == []


def test_sound_alone_plays_and_what_has_no_label_says_nothing_of_it(running, tmp_path, project):
    clip = write_clip(tmp_path / "sound.mkv", sound=tone(1.5))
    view = inspect(str(clip), models=[project / MODEL], root=project)
    write_page(view, tmp_path / "page.html")
    with opened(running, tmp_path / "page.html", width=390) as page:
        assert "label" not in page.inner_text(".now")
        until(page, "document.getElementById('media').readyState >= 3")
        page.click("#play")
        until(page, "Number(document.getElementById('lanes').style.getPropertyValue('--at')) > .1")
        assert violations(page) == []
        assert sideways(page) == 0
        assert page.complaints == []


def test_a_page_without_model_or_clip_says_so(running, view, tmp_path):
    write_page(replace(view, models=[], remark="None <here>.", playback=None), tmp_path / "p.html")
    with opened(running, tmp_path / "p.html", width=390) as page:
        assert "No prediction." in page.inner_text(".now")
        assert "None <here>." in page.inner_text(".now")
        assert "not part of this page" in page.inner_text(".stage")
        page.select_option("#mask", label="rate 0.5")
        page.focus("#seek")
        page.keyboard.press("End")
        assert cursor(page) == 1
        assert violations(page) == []
        assert page.complaints == []


@pytest.mark.skipif(not CLIPS.exists(), reason="no ../shared/clips beside the repository")
@pytest.mark.parametrize("name", ["address/000.mp4", "edge/face_then_none.mov", "talk/001.mp4"])
def test_pages_of_real_clips(running, project, tmp_path, name):
    """Up to 8 s; the bound of 5 MB is for 10 s."""
    models = [project / MODEL]
    view = inspect(str(CLIPS / name), models=models, transcript="So it goes", root=project)
    write_page(view, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 5_000_000 * view.subject.duration_s / 10
    with opened(running, tmp_path / "page.html", width=390) as page:
        until(page, "document.getElementById('media').readyState >= 1")
        length = page.evaluate("document.getElementById('media').duration")
        assert length == pytest.approx(view.subject.duration_s, abs=0.15)
        assert sideways(page) == 0
        assert violations(page) == []
        assert page.complaints == []
