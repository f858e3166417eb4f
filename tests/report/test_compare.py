import csv
import io
import json
from collections import Counter

import pytest
import yaml
from rich.console import Console

from mitfrnet.errors import CorpusError, FeatureError, ParamsError
from mitfrnet.metrics import mwa, score
from mitfrnet.report.compare import (
    CAVEATS,
    CORPORA,
    compare,
    comparison_csv,
    read_published,
    render,
)

PUBLISHED = read_published()
BY_PLACE = {(p.table, p.metric, p.model, p.missing_rate): p for p in PUBLISHED}
RATES = [i / 10 for i in range(11)]

# What a constant prediction gets: all negative on SIMS, all positive on MOSI.
SIMS_MAJORITY = {"acc2": 0.6937, "acc3": 0.5427, "acc5": 0.2123, "f1_swapped": 0.8191}
MOSI_MAJORITY = {
    "acc2_has0": 0.4475,
    "f1_has0_swapped": 0.6183,
    "acc2_non0": 0.4223,
    "f1_non0_swapped": 0.5938,
}


def with_caveat(code, table):
    return {
        (p.metric, p.model, p.missing_rate)
        for p in PUBLISHED
        if p.table == table and code in p.caveats
    }


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a function that writes params.yaml and scores, and works in their folder."""
    monkeypatch.chdir(tmp_path)

    def write(scores, scale="mosi", block=None, **grid):
        """Write `scores` of corpus `mine`, by (model, rate, seed); `block` is its section."""
        axes = {
            "corpora": ["mine"],
            "models": list(dict.fromkeys(model for model, _, _ in scores)),
            "missing_rates": list(dict.fromkeys(rate for _, rate, _ in scores)),
            "seeds": list(dict.fromkeys(seed for _, _, seed in scores)),
        }
        layout = {"layout": "mmsa", "language": "en"}
        params = {"grid": axes | grid, "corpora": {"mine": layout | (block or {"scale": scale})}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        for (model, rate, seed), run in scores.items():
            path = tmp_path / "metrics/mine" / model / str(rate) / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"constant_prediction": False} | run))
        return tmp_path / "metrics"

    return write


def row_of(comparison, metric, model="mitfrnet", rate=0.3, table=4):
    (row,) = (
        row for row in comparison.rows if row.published == BY_PLACE[table, metric, model, rate]
    )
    return row


def shown(comparison):
    console = Console(width=100, file=io.StringIO(), highlight=False)
    for part in render(comparison):
        console.print(part)
    return console.file.getvalue()


def test_every_number_of_the_four_tables_is_there_once():
    """Table 4: 8 metrics x 5 models x 11 rates; 5: 6 x 5 x 11; 6: 5 x 11; 7: 8 x 2 x 11."""
    assert Counter(p.table for p in PUBLISHED) == {4: 440, 5: 330, 6: 55, 7: 176}
    assert len(BY_PLACE) == len(PUBLISHED)
    assert {p.missing_rate for p in PUBLISHED} == set(RATES)
    assert {p.corpus for p in PUBLISHED if p.table == 5} == {"sims"}
    assert {p.corpus for p in PUBLISHED if p.table != 5} == {"mosi"}


@pytest.mark.parametrize(
    ("table", "metric", "model", "rate", "value"),
    [  # read from the paper a second time
        (4, "acc2_has0", "mitfrnet", 0.0, 0.8207),
        (4, "acc2_non0", "misa", 0.6, 0.6570),
        (4, "f1_non0_swapped", "tfrnet", 0.0, 0.825),
        (4, "acc7", "mult", 0.4, 0.2478),
        (4, "mae", "mitfrnet", 0.0, 0.7452),
        (4, "mae", "tfn", 1.0, 1.4855),
        (4, "corr", "mitfrnet", 1.0, None),
        (4, "corr", "tfrnet", 1.0, 0.0146),
        (5, "acc2", "tfn", 0.6, 0.7155),
        (5, "acc5", "tfrnet", 0.4, 0.2261),
        (5, "f1_swapped", "tfn", 0.9, 0.709),
        (5, "corr", "mult", 1.0, 0.0054),
        (5, "corr", "misa", 0.9, None),
        (6, "running_time_s", "tfn", 0.1, 0),
        (6, "running_time_s", "mitfrnet", 0.5, 14),
        (7, "acc2_non0", "mitfrnet_no_mmr", 0.0, 0.8409),
        (7, "mae", "mitfrnet_no_mitr", 0.9, 1.4838),
        (7, "corr", "mitfrnet_no_mmr", 1.0, None),
    ],
)
def test_numbers_are_those_of_the_paper(table, metric, model, rate, value):
    assert BY_PLACE[table, metric, model, rate].value == value


def test_shares_and_errors_are_in_our_units():
    """The paper prints percent, and 100 times the mean absolute error."""
    for p in PUBLISHED:
        if p.value is not None and p.metric != "running_time_s":
            assert 0 < p.value < (1.6 if p.metric == "mae" else 0.9)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("mitfrnet", 40.68), ("tfrnet", 40.16), ("misa", 39.55), ("mult", 38.48), ("tfn", 36.49)],
)
def test_the_missing_weighted_average_of_table_4(model, expected):
    """Eq. 25 over the row Acc-2 (-), by hand, in percent."""
    by_rate = {rate: BY_PLACE[4, "acc2_has0", model, rate].value for rate in RATES}
    assert 100 * mwa(by_rate) == pytest.approx(expected, abs=0.005)


def test_majority_cells_are_marked_and_no_others():
    for p in PUBLISHED:
        constants = SIMS_MAJORITY if p.table == 5 else MOSI_MAJORITY
        assert ("majority" in p.caveats) == (constants.get(p.metric, -1) == p.value), p
    of_table_5 = Counter(metric for metric, _, _ in with_caveat("majority", 5))
    assert of_table_5["acc2"] == 20
    assert of_table_5["f1_swapped"] == 19
    at_one = {(metric, model) for metric, model, rate in with_caveat("majority", 7) if rate == 1}
    models = ("mitfrnet_no_mmr", "mitfrnet_no_mitr")
    assert at_one == {(metric, model) for metric in MOSI_MAJORITY for model in models}


def test_majority_values_are_those_of_constant_predictions():
    """The counts that give the published shares to the digit.

    MOSI: 307 of 686 test labels are not negative, and 277 of the 656 other than 0 positive. SIMS:
    of 457, 317 are not positive, 248 of them below -0.1, and 97 of those above -0.7.
    """
    positive = score([1.0] * 686, [-1.0] * 379 + [0.0] * 30 + [1.0] * 277, "mosi")
    assert {m: round(positive[m], 4) for m in MOSI_MAJORITY} == MOSI_MAJORITY
    label = [-0.5] * 97 + [-0.9] * 151 + [0.0] * 69 + [0.5] * 140
    negative = score([-0.5] * 457, label, "sims")
    assert {m: round(negative[m], 4) for m in SIMS_MAJORITY} == SIMS_MAJORITY


def test_cells_where_another_model_is_better_are_marked():
    for table, count in ((4, 5), (5, 13)):
        beaten = set()
        for p in PUBLISHED:
            if p.table != table or p.model != "mitfrnet" or p.value is None:
                continue
            others = [
                BY_PLACE[table, p.metric, model, p.missing_rate].value
                for model in ("tfn", "mult", "misa", "tfrnet")
            ]
            others = [value for value in others if value is not None]
            better = min(others) < p.value if p.metric == "mae" else max(others) > p.value
            if better:
                beaten.add((p.metric, p.model, p.missing_rate))
        assert with_caveat("not_best", table) == beaten
        assert len(beaten) == count
    assert ("mae", "mitfrnet", 0.9) in with_caveat("not_best", 4)  # MulT has 142.12


def test_cells_of_table_7_that_equal_table_4_are_marked():
    equal = {
        (p.metric, p.model, p.missing_rate)
        for p in PUBLISHED
        if p.table == 7
        and p.value is not None
        and p.value == BY_PLACE[4, p.metric, "mitfrnet", p.missing_rate].value
    }
    assert with_caveat("duplicate", 7) == equal
    assert equal == {
        ("acc2_non0", "mitfrnet_no_mitr", 0.5),
        ("f1_non0_swapped", "mitfrnet_no_mitr", 0.5),
        ("acc5", "mitfrnet_no_mmr", 0.3),
        ("acc5", "mitfrnet_no_mmr", 0.7),
    }


def test_wrong_arrows_are_marked():
    """Printed: 84.17 down from 83.48; 64.84 up from 67.97; 148.38 down from 142.87."""
    wrong = with_caveat("arrow", 7)
    assert len(wrong) == 20
    assert ("f1_non0_swapped", "mitfrnet_no_mmr", 0.0) in wrong
    assert ("acc2_non0", "mitfrnet_no_mitr", 0.6) in wrong
    assert ("mae", "mitfrnet_no_mitr", 0.9) in wrong


def test_caveats_of_whole_rows_and_tables():
    for p in PUBLISHED:
        assert ("swapped" in p.caveats) == p.metric.startswith("f1")
        assert p.metric.endswith("_swapped") == p.metric.startswith("f1")
        assert ("bert" in p.caveats) == (p.table == 5)
        assert ("unit" in p.caveats) == (p.table == 6)
        assert ("undefined" in p.caveats) == (p.value is None)


def test_every_caveat_has_one_sentence_and_a_use():
    used = {code for p in PUBLISHED for code in p.caveats}
    assert used | {"constant"} == set(CAVEATS)
    assert all(text[0].isupper() and text.endswith(".") for text in CAVEATS.values())


def test_mean_deviation_and_difference_over_runs(study):
    """0.72 and 0.76: mean 0.74, deviation 0.04 / sqrt(2); published 0.7297."""
    metrics = study(
        {("mitfrnet", 0.3, 1): {"acc2_has0": 0.72}, ("mitfrnet", 0.3, 2): {"acc2_has0": 0.76}}
    )
    row = row_of(compare("mine", "mosi", metrics), "acc2_has0")
    assert row.mean == pytest.approx(0.74)
    assert row.deviation == pytest.approx(0.04 / 2**0.5)
    assert row.difference == pytest.approx(0.74 - 0.7297)
    assert row_of(compare("mine", "mosi", metrics), "acc2_has0", rate=0.4).runs == ()


def test_a_score_that_is_not_defined_does_not_count(study):
    """One run without a correlation, one with 0.5; at 1.0 the paper has none. Zero counts."""
    one = {"corr": None, "constant_prediction": True}
    metrics = study(
        {
            ("mitfrnet", 0.3, 1): one,
            ("mitfrnet", 0.3, 2): {"corr": 0.5},
            ("mitfrnet", 1.0, 1): {"corr": 0.0},
            ("mitfrnet", 1.0, 2): {"corr": 0.1},
        }
    )
    comparison = compare("mine", "mosi", metrics)
    row = row_of(comparison, "corr")
    assert (row.values, row.mean, row.deviation) == ([0.5], 0.5, None)
    assert row.caveats == ("constant",)
    at_one = row_of(comparison, "corr", rate=1.0)
    assert (at_one.values, at_one.difference) == ([0.0, 0.1], None)


def test_of_several_test_rates_that_of_training_counts(study):
    """Every seed of the test masks is a run: the mean of 0.7 and 0.9 is 0.8."""
    by_rate = {
        "0.0": {"by_mask_seed": {"1": {"acc7": 0.1, "constant_prediction": False}}},
        "0.30": {
            "by_mask_seed": {
                "1": {"acc7": 0.7, "constant_prediction": False},
                "2": {"acc7": 0.9, "constant_prediction": False},
            }
        },
    }
    comparison = compare("mine", "mosi", study({("mitfrnet", 0.3, 1): {"by_rate": by_rate}}))
    assert row_of(comparison, "acc7").mean == pytest.approx(0.8)
    assert row_of(comparison, "acc7", rate=0.0).runs == ()


def test_absent_cells_are_counted_and_left_out(study):
    metrics = study(
        {("mitfrnet", 0.3, 1): {"acc7": 0.4}}, seeds=[1, 2, 3], models=["mitfrnet", "tfn"]
    )
    comparison = compare("mine", "mosi", metrics)
    assert "5 of 6 cells of the grid have no scores and are left out." in comparison.notes
    assert row_of(comparison, "acc7").mean == 0.4
    assert "TFN" not in shown(comparison)


def test_models_and_rates_that_the_paper_lacks_are_named(study):
    metrics = study(
        {("mitfrnet", 0.3, 1): {"acc7": 0.4}},
        models=["mitfrnet", "wide"],
        missing_rates=[0.3, 0.25, "random_train"],
    )
    notes = compare("mine", "mosi", metrics).notes
    assert "Models that are not in the paper and are left out: wide." in notes
    assert "Missing rates that are not in the paper and are left out: 0.25, random_train." in notes


def test_a_run_without_any_scores_is_an_error(study):
    metrics = study({}, models=["mitfrnet"], missing_rates=[0.3], seeds=[1, 2])
    with pytest.raises(FeatureError, match=r"mine: no scores of the 2 cells .*dvc repro"):
        compare("mine", "mosi", metrics)


def test_another_corpus_or_scale_is_noted_first(study):
    metrics = study({("mitfrnet", 0.3, 1): {"mae": 0.4, "acc5": 0.3}}, scale="mosi")
    assert "mine may not be CH-SIMS" in compare("mine", "sims", metrics).notes[0]
    assert (
        "on the scale mosi, those of CH-SIMS on the scale sims"
        in compare("mine", "sims", metrics).notes[1]
    )
    same = compare("mine", "mosi", metrics, same_corpus=True)
    assert not [note for note in same.notes if "mine" in note]


def test_a_custom_scale_is_named_by_its_bounds(study):
    own = {"low": 0, "high": 5, "neutral": 2.5, "neutral_is": "positive", "clip": True, "cuts": {}}
    metrics = study({("mitfrnet", 0.3, 1): {"mae": 0.4}}, scale=own)
    assert (
        "on the scale from 0 to 5, those of CMU-MOSI" in compare("mine", "mosi", metrics).notes[1]
    )


def test_classes_cannot_be_compared(study):
    block = {"task": "classification", "classes": ["sad", "glad"]}
    metrics = study({("mitfrnet", 0.3, 1): {"accuracy": 0.4}}, block=block)
    with pytest.raises(CorpusError, match=r"^params\.yaml: corpora\.mine: labels are not scores"):
        compare("mine", "mosi", metrics)


def test_a_wrong_scale_is_one_line(study):
    metrics = study({("mitfrnet", 0.3, 1): {"mae": 0.4}}, scale="mosy")
    with pytest.raises(ParamsError, match=r"^params\.yaml: corpora\.mine\.scale: .*mosy") as error:
        compare("mine", "mosi", metrics)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("corpus", "published", "table", "message"),
    [
        (
            "yours",
            "mosi",
            None,
            r"^params\.yaml: grid\.corpora: has no yours \(expected one of: mine\)",
        ),
        ("mine", "sims", 4, r"Table 4 has no scores on CH-SIMS \(expected 5\)"),
        ("mine", "mosi", 5, r"Table 5 has no scores on CMU-MOSI \(expected 4, 6 or 7\)"),
    ],
)
def test_what_cannot_be_compared_is_an_error(study, corpus, published, table, message):
    metrics = study({("mitfrnet", 0.3, 1): {"acc7": 0.4}})
    with pytest.raises(ParamsError, match=message):
        compare(corpus, published, metrics, table=table)


@pytest.mark.parametrize(
    ("model", "rate", "table", "message"),
    [
        ("mitfrnet", 0.3, 7, r"model with Table 7 .*: mitfrnet_no_mmr, mitfrnet_no_mitr\)"),
        ("wide", 0.3, None, r"model with Tables 4, 6 and 7 .*: tfn, mult, misa, tfrnet, mitfrnet"),
        ("mitfrnet", 0.25, 4, r"missing rate with Table 4 .*: 0\.0, 0\.1, .*, 1\.0\)"),
    ],
)
def test_a_grid_that_shares_no_cell_is_an_error(study, model, rate, table, message):
    metrics = study({(model, rate, 1): {"acc7": 0.4}})
    with pytest.raises(ParamsError, match=r"^params\.yaml: grid: shares no " + message):
        compare("mine", "mosi", metrics, table=table)


def test_a_broken_file_is_named(study):
    metrics = study({("mitfrnet", 0.3, 1): {"acc7": 0.4}})
    (metrics / "mine/mitfrnet/0.3/1.json").write_text("{")
    with pytest.raises(FeatureError, match=r"0\.3/1\.json: not valid JSON"):
        compare("mine", "mosi", metrics)


def test_the_terminal_shows_numbers_marks_and_their_sentences(study):
    """0.9 beside 0.4475: +45.25 points; the letters come in order of appearance."""
    metrics = study({("misa", 0.8, 1): {"acc2_has0": 0.9, "f1_has0_swapped": 0.5}}, models=["misa"])
    lines = shown(compare("mine", "mosi", metrics, table=4)).splitlines()
    assert lines[0] == "MISA beside Table 4 of the paper; per missing rate 1 run of ours"
    assert [line.split() for line in lines[1:9]] == [
        ["missing", "rate", "0.8"],
        ["acc2_has0"],
        ["paper", "44.75a"],
        ["ours", "90.00"],
        ["difference", "+45.25"],
        ["f1_has0_swapped", "b"],
        ["paper", "61.03"],
        ["ours", "50.00"],
    ]
    text = " ".join(" ".join(lines).split())
    assert f"a: {CAVEATS['majority']}" in text
    assert f"b: {CAVEATS['swapped']}" in text
    assert CAVEATS["arrow"] not in text
    assert "mine may not be CMU-MOSI" in text


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_whole_study_fits_100_columns(study, corpus):
    scores = {}
    for p in PUBLISHED:
        if p.corpus == corpus and p.table != 6:
            for seed, value in ((111, 0.1234), (1111, 0.8765), (11111, 0.9999)):
                cell = scores.setdefault((p.model, p.missing_rate, seed), {})
                cell |= {p.metric: value, "constant_prediction": True}
    text = shown(compare("mine", corpus, study(scores, scale=corpus)))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    ours = [line for line in text.splitlines() if line.startswith("  ours")]
    cells = sum(p.corpus == corpus and p.table != 6 for p in PUBLISHED)
    assert sum(line.count("66.66") + line.count("0.667") for line in ours) == cells


def test_csv_holds_every_row_unrounded(study):
    metrics = study({("mitfrnet", 0.3, 1): {"acc2_has0": 2 / 3}})
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compare("mine", "mosi", metrics)))))
    assert len(rows) == 440 + 55 + 176
    (row,) = (r for r in rows if r["ours"])
    assert (row["corpus"], row["published_corpus"], row["table"]) == ("mine", "mosi", "4")
    assert (row["model"], row["missing_rate"], row["runs"]) == ("mitfrnet", "0.3", "1")
    assert float(row["ours"]) == 2 / 3
    assert float(row["difference"]) == pytest.approx(2 / 3 - 0.7297, abs=1e-12)
    assert row["deviation"] == ""


def test_seconds_are_not_set_beside_ours(study):
    """The training's own key, among the scores."""
    metrics = study({("mitfrnet", 0.3, 1): {"seconds_per_epoch": 2.5, "mae": 1.0}})
    comparison = compare("mine", "mosi", metrics)
    row = row_of(comparison, "running_time_s", table=6)
    assert len(row.runs) == 1
    assert (row.values, row.mean, row.difference) == ([], None, None)
    assert row_of(comparison, "mae").values == [1.0]
