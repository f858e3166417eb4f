import base64
import hashlib
import html
import re
from html.parser import HTMLParser

import pytest
import yaml

from mitfrnet.report.page import write_report
from mitfrnet.report.worst import WorstClip
from tests.helpers.made_results import REPORT, make_results, write_results
from tests.helpers.paths import ROOT

HOSTILE = "<script>alert(1)</script>"
STUDY = {
    "corpora": {"first": "mosi", "second": "sims"},
    "models": ("mitfrnet", "mitfrnet_no_mmr", "tfn"),
    "rates": (0.1, 1.0),
    "seeds": (1, 2),
}


class Page(HTMLParser):
    """The page's elements and the text of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.tables = [], [], []
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attributes]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td", "caption"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
        if tag in ("th", "td", "caption"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def values(self, key):
        return [value for _, k, value in self.attributes if k == key]


def make(folder, worst=None, **study):
    results = make_results(folder / "results", **study)
    write_report(results, REPORT, folder / "report", worst)
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two corpora, two models and a part switched off, rates and seeds."""
    return make(tmp_path_factory.mktemp("study"), **STUDY)


def test_numbers_of_the_first_table_by_hand(tmp_path):
    """Labels -2, -1, 1, 3, each predicted 0.25 too high.

    All signs are right and all classes of seven; MAE is 0.25, the correlation 1. The majority
    class is 1.5: half of the signs, none of the classes but 2 = round(1.5), which no label has;
    MAE (3.5 + 2.5 + 0.5 + 1.5) / 4 = 2; F1 of `positive` 2 / 3 and of the other 0, so 1 / 3.
    """
    html = make(
        tmp_path, clips=4, label=[-2, -1, 1, 3], predict=lambda m, r, s, label: label + 0.25
    )
    head, group, model, majority = Page(html).tables[0][:4]
    assert head[0] == "Predictor"
    assert head[1] == "Acc-2 % ↑, higher is better"
    assert head[4] == "MAE ↓, lower is better"
    assert group == ["Missing rate 0.3"]
    values = [re.match(r"\S+", cell)[0] for cell in model[1:]]
    assert (model[0], values) == ("MIT-FRNet", ["100.0", "100.0", "100.0", "0.250", "1.000"])
    assert all(" best [" in cell for cell in model[1:])
    assert majority[0] == "Majority class constant prediction"
    values = [re.match(r"\S+", cell)[0] for cell in majority[1:]]
    assert values == ["50.0", "33.3", "0.0", "2.000", "\N{EN DASH}"]
    assert "In one run, one clip is worth 25.0 points of Acc-2" in html
    assert "4 test clips, one run of each model." in html


def test_the_page_loads_nothing(study):
    page = Page(study)
    loading = {"link", "img", "iframe", "object", "embed", "base", "video", "audio"}
    assert not loading & set(page.tags)
    assert page.tags.count("script") == 1
    script = study.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in study
    assert "@import" not in study
    assert "default-src 'none'" in study
    for tag, key, value in page.attributes:
        if key in ("src", "srcset", "href", "xlink:href", "action", "data"):
            assert value.startswith("#") or (tag == "a" and value.startswith("https://doi.org/"))
        if value and "url(" in value:
            assert re.findall(r"url\((.)", value) == ["#"]
    assert "url(" not in study.split("<style>")[1].split("</style>")[0]


def test_a_screen_reader_gets_all_tables_and_figures(study):
    page = Page(study)
    assert page.tags.count("table") == page.tags.count("caption")
    for tag in ("html", "header", "nav", "main", "h1"):
        assert page.tags.count(tag) == 1
    heads = [key for tag, key, _ in page.attributes if tag == "th"]
    assert heads.count("scope") == page.tags.count("th")
    assert page.tags.count("svg") == page.tags.count("figure") == page.tags.count("figcaption")
    described = [
        value for tag, key, value in page.attributes if (tag, key) == ("svg", "aria-label")
    ]
    assert len(described) == page.tags.count("svg")
    assert any("missing rate 0.1, seed 1: validation from 1.27 to " in text for text in described)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {v for v in page.values("href") if v.startswith("#")} <= {f"#{i}" for i in ids}


def test_same_results_give_same_bytes_and_old_files_go(tmp_path, study):
    results = make_results(tmp_path / "results", **STUDY)
    out = tmp_path / "elsewhere" / "report"
    stale = out / "plots" / "losses" / "left" / "mitfrnet" / "0.3" / "1.tsv"
    stale.parent.mkdir(parents=True)
    stale.write_text("epoch\n")
    (out / "tables").mkdir()
    (out / "tables" / "left.csv").write_text("a\n")
    write_report(results, REPORT, out)
    assert (out / "index.html").read_text(encoding="utf-8") == study
    assert str(tmp_path) not in study
    assert not stale.exists()
    assert len(list((out / "plots" / "losses").rglob("*.tsv"))) == 24
    written = {p.relative_to(out).as_posix() for p in out.rglob("*.*")}
    assert "tables/left.csv" not in written
    tables = ("scores_first", "scores_first_mae", "averages_second", "ablation_first")
    tables += ("paired_tests_second", "timings_first", "trainings_first", "masks_second")
    assert {f"tables/{t}.{kind}" for t in tables for kind in ("csv", "tex")} <= written
    figures = ("rates_first", "mwa_bars_first", "mwa_all_scores_second", "convergence_first_tfn")
    assert {f"figures/{f}.{kind}" for f in figures for kind in ("svg", "png")} <= written


def test_cells_that_left_the_grid_are_not_shown(tmp_path):
    results = tmp_path / "results"
    write_results(
        results,
        {"one": "mosi", "gone": "sims"},
        models=("tfn", "mitfrnet", "misa"),
        rates=(0.3, 0.7),
        seeds=(1, 9),
    )
    html = make(tmp_path)
    assert make(tmp_path / "alone") == html
    assert not re.search(
        r"\bgone\b|TFN|MISA|0\.7\b|seed 9", html.split("</style>")[1].split("<svg")[0]
    )


def test_all_data_is_escaped(tmp_path):
    results = make_results(tmp_path, clips=2, ids=[HOSTILE, "a\tb\nc"])
    results.corpora[0].features["visual"]["missing"][HOSTILE] = 7
    results.cells[0].config["settings"][HOSTILE] = HOSTILE
    results.cells[0].config["versions"][HOSTILE] = HOSTILE
    worst = [
        WorstClip("one", HOSTILE, "1.00", "0.00", HOSTILE, "x.html"),
        WorstClip("one", "a\tb\nc", "1.00", "0.00", 3 * HOSTILE),
    ]
    params = REPORT.model_copy(update={"title": HOSTILE})
    write_report(results, params, tmp_path / "report", {"one": worst})
    html = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert HOSTILE not in html
    page = Page(html)
    assert page.tags.count("script") == 1
    assert [f"a b c {3 * HOSTILE}", f"{HOSTILE} {HOSTILE}"] in (
        sorted((row[0] for row in table[1:]), reverse=True)
        for table in page.tables
        if table[0][0] == "Clip and transcript"
    )
    table = (tmp_path / "report/plots/predictions/one/mitfrnet/0.3/1.tsv").read_text()
    assert '"a\tb\nc"\t0.3\t' in table


def test_one_rate_shows_parts_and_several_show_rates(tmp_path, study):
    html = make(tmp_path)
    assert "Over missing rates" not in html
    assert {"text", "acoustic", "visual", "training", "validation"} <= legend(html)
    assert 'href="#rates"' in study
    assert {"0.1", "1.0", "MIT-FRNet", "TFN", "Text ridge", "Majority class"} <= legend(study)
    assert "missing rate 0.1" in study


def legend(html):
    return set(re.findall(r"text-anchor: start[^>]*>([^<]+)<", html))


def test_every_test_rate_of_a_list_has_its_rows(tmp_path):
    html = make(tmp_path, tested=(0.0, 0.5))
    assert "Trained at missing rate 0.3, tested at 0.5" in html
    assert 'id="rates"' in html


def test_data_and_masks_are_shown(study):
    tables = {tuple(t[0]): t for t in Page(study).tables}
    corpora = next(t for head, t in tables.items() if head == ("", "first", "second"))
    assert ["Hours", "0.25", "0.25"] in corpora
    assert ["Label scale", "-3 to 3 (mosi)", "-1 to 1 (sims)"] in corpora
    assert ["Sources of transcripts", *["srt (3), table (44)"] * 2] in corpora
    assert ["Clips with word times", "5", "5"] in corpora
    assert ["Transcripts cut to the encoder\u2019s length", "2", "2"] in corpora
    assert ["Tokens not in the vocabulary", "1.6 %", "1.6 %"] in corpora
    aligned = "segments (43), words (5)"
    assert ["Sound and face aligned to text by", aligned, aligned] in corpora
    assert corpora[-2][1] == "20 negative, 4 neutral, 24 positive; mean 0.125"
    missing = next(t for head, t in tables.items() if head[:2] == ("Modality", "Clips without"))
    assert missing[2] == [
        "acoustic", "2 of 48", "no audio stream (2)", "1,234", "93.8 %", "100.0 %", "50.0 %"
    ]  # fmt: skip
    masks = next(t for head, t in tables.items() if head[:2] == ("Modality", "Asked, train"))
    assert masks[1] == ["Missing rate 0.1, pattern random, seed 1"]
    assert masks[2] == ["text", *["10.0 %"] * 6, *["16.2 %"] * 3, "3", "3", "3"]


def test_the_page_stays_small(study):
    assert len(study) < 3_000_000


def test_the_paper_is_cited_as_the_citation_file_does(study):
    """The page has initials where the file has given names."""
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    cited = html.unescape(study[study.index('id="cite"') :])
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names'][0]}." in cited
    for fact in ("title", "journal", "year", "doi"):
        assert str(paper[fact]) in cited


@pytest.mark.parametrize("rates", [(0.0,), (0.0, 0.3)])
def test_a_cell_with_nothing_to_reconstruct_has_no_such_curve(tmp_path, rates):
    html = make(tmp_path, rates=rates)
    assert "Task loss" in html
    assert ("Reconstruction loss" in html) == (0.3 in rates)


def test_each_comparison_is_shown(study):
    tables = {tuple(t[0]): t for t in Page(study).tables}
    paired = next(t for head, t in tables.items() if head[0] == "MIT-FRNet minus")
    assert [row[0] for row in paired[1:]] == ["MIT-FRNet without MMR", "TFN"]
    assert 'href="#comparisons"' in study
    assert "Parts of MIT-FRNet switched off, on first" in study


def test_a_single_model_has_no_comparisons(tmp_path):
    assert "Comparisons" not in make(tmp_path)


def test_classes_have_a_confusion_table_and_no_scatter(tmp_path):
    scale = {"task": "classification", "classes": ["calm", "angry", "sad"]}
    html = make(
        tmp_path,
        {"one": [WorstClip("one", "v/a", "calm", "sad")]},
        corpora={"one": scale},
        rates=(0.1, 0.2, 0.3, 0.4),
        models=("mitfrnet", "tfn"),
    )
    page = Page(html)
    assert ["Label", "predicted calm", "predicted angry", "predicted sad"] in [
        t[0] for t in page.tables
    ]
    assert "furthest from their label" not in html
    assert "the test clips put in a wrong class by most runs" in html
    assert "3 classes" in html
    assert "Accuracy % ↑" in html.replace('<span class="unit" aria-hidden="true">', "")


def test_protocols_are_shown_by_name(tmp_path):
    html = make(tmp_path, rates=(0.5, "random_train"), tested=(0.0, 0.5, 1.0))
    assert "trained at a random missing rate per clip" in html
    assert ["Missing rate 0.5"] in Page(html).tables[0]
    assert "by protocol random train" in html
    assert "scores_one_random_train_mae.csv" in {
        p.name for p in (tmp_path / "report" / "tables").iterdir()
    }


def test_a_scale_of_its_own(tmp_path):
    scale = {"low": 0, "high": 10, "neutral": 5, "neutral_is": "positive", "clip": True}
    scale["cuts"] = {"5": {"edges": [2, 4, 6, 8], "closed": "left"}}
    html = make(tmp_path, corpora={"one": scale})
    assert "0 to 10, neutral at 5" in html
    assert "exact class of 5, cut at 2, 4, 6 and 8" in html


def test_a_model_tested_at_other_rates_alone_still_has_its_table(tmp_path):
    tested = (0.0, 0.1, 0.2, 0.4)
    html = make(tmp_path, corpora={"one": "mosi", "two": "mosi"}, rates=(0.25,), tested=tested)
    scores = html[html.index('id="scores"') : html.index('id="rates"')]
    assert scores.count("<table") == 2
