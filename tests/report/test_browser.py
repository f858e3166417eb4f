"""The page in a real browser: a study of 165 cells."""

import pytest

from mitfrnet.report.page import write_report
from tests.helpers.browser import needs_browser, opened, sideways, violations
from tests.helpers.made_results import REPORT, make_results

pytestmark = needs_browser

MODELS = ("MIT-FRNet", "TFN", "MulT", "MISA", "TFR-Net")
KEYS = ("mitfrnet", "tfn", "mult", "misa", "tfrnet")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    results = make_results(
        folder,
        models=KEYS,
        rates=tuple(i / 10 for i in range(11)),
        seeds=(1, 2, 3),
        clips=60,
    )
    assert len(results.cells) == 165
    write_report(results, REPORT, folder / "report")
    return folder / "report" / "index.html"


def shown(page, selector):
    """Return the first line of the text of each visible `selector`."""
    texts = page.locator(f"{selector}:visible").all_inner_texts()
    return [text.strip().split("\n")[0] for text in texts]


def rows(page):
    return shown(page, "#scores tbody th[scope=row]")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_is_accessible(running, path, width, dark):
    with opened(running, path, width=width, dark=dark) as page:
        assert sideways(page) == 0
        assert violations(page) == []
        for details in page.locator("details").all():
            details.evaluate("e => { e.open = true; }")
        page.uncheck("#models input[value=tfn]")
        page.locator("#scores thead button").nth(1).click()
        assert sideways(page) == 0
        assert violations(page) == []
        light = (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert light != dark
        assert page.complaints == []
        assert page.requests == []


def test_it_is_small_and_opens_at_once(page, path, capsys):
    size = path.stat().st_size
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    with capsys.disabled():
        print(f"\nreport of 165 cells: {size:,} bytes, open after {loaded:.0f} ms")
    assert size < 5_000_000
    assert 0 < loaded < 2000


def test_a_model_can_be_taken_out_of_tables_and_charts(page):
    curves = "#rates figure [data-model=tfn]"
    drawn = page.locator(f"{curves}:visible").count()
    assert rows(page)[:5] == list(MODELS)
    assert drawn > 20
    assert page.locator("#losses summary", has_text="TFN").is_visible()
    page.get_by_label("TFN", exact=True).uncheck()
    assert rows(page)[:4] == ["MIT-FRNet", "MulT", "MISA", "TFR-Net"]
    assert page.locator(f"{curves}:visible").count() == 0
    assert page.locator("#rates figure [data-model=mult]:visible").count() == drawn
    assert not page.locator("#losses summary", has_text="TFN").is_visible()
    page.get_by_label("TFN", exact=True).check()
    assert rows(page)[:5] == list(MODELS)
    assert page.locator(f"{curves}:visible").count() == drawn


def bars(page, model):
    """Return how many intervals of a model are visible in the curves."""
    return page.evaluate(
        """model => [...document.querySelectorAll(`#rates figure [data-model=${model}] path`)]
          .filter(p => p.style.strokeOpacity === '0.6' && p.getClientRects().length).length""",
        model,
    )


def test_intervals_follow_the_models_that_are_shown(page):
    """Five models at eleven rates in five panels: none is left out."""
    drawn = {model: bars(page, model) for model in KEYS}
    assert min(drawn.values()) >= 44
    page.get_by_label("MulT", exact=True).uncheck()
    assert bars(page, "mult") == 0
    assert {m: bars(page, m) for m in KEYS if m != "mult"} == {
        m: n for m, n in drawn.items() if m != "mult"
    }
    page.emulate_media(media="print")
    assert bars(page, "mult") == 0
    assert bars(page, "tfn") == drawn["tfn"]
    page.emulate_media(media="screen")
    page.get_by_label("MulT", exact=True).check()
    assert bars(page, "mult") == drawn["mult"]


def test_every_legend_and_bar_belongs_to_a_model(page):
    """Each of the eight predictors is named in the bars; six of them in the curves' legend."""
    named = (
        "[...document.querySelectorAll('#rates figure [data-model] text')].map(t => t.textContent)"
    )
    texts = page.evaluate(named)
    assert set(MODELS) | {"Majority class", "Training mean", "Text ridge"} <= set(texts)
    assert texts.count("TFN") == 2 + 2  # two legends, two rows of bars


def test_a_table_sorts_by_keyboard(page):
    """Rising, falling, as printed; a score that is not defined comes last either way."""
    head = page.locator("#scores th", has_text="Corr")
    before = rows(page)
    corr = "#scores tbody tr td:nth-of-type(5)"
    head.locator("button").focus()
    for way, sign in (("ascending", 1), ("descending", -1)):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == way
        *defined, last, most = [text.split()[0] for text in shown(page, corr)]
        assert last == most == "\N{EN DASH}"
        values = [sign * float(value) for value in defined]
        assert values == sorted(values)
        assert len(set(values)) > 1
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None
    assert rows(page) == before


def test_one_column_sorts_at_a_time(page):
    heads = page.locator("#scores thead th")
    heads.nth(4).locator("button").click()
    heads.nth(0).locator("button").click()
    assert page.locator("#scores [aria-sort]").count() == 1
    assert rows(page) == sorted(rows(page), key=str.lower)


def test_without_script_the_page_is_whole(running, path):
    with opened(running, path, script=False) as page:
        assert rows(page)[:5] == list(MODELS)
        assert not page.locator("#models").is_visible()
        assert page.locator("th button").count() == 0
        assert page.complaints == []


def test_the_policy_lets_no_other_script_run(running, path, tmp_path):
    other = "<script>document.title = 'taken'</script>"
    changed = tmp_path / "changed.html"
    text = path.read_text(encoding="utf-8")
    changed.write_text(text.replace("</main>", f"</main>{other}"), encoding="utf-8")
    with opened(running, changed) as page:
        assert page.title() == "A made-up study"
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
