import pytest

from mitfrnet.report.tables import study
from mitfrnet.report.tables.averages import blocks
from mitfrnet.report.tables.paired import comparisons
from mitfrnet.report.tables.scores import score_groups
from tests.helpers.made_results import REPORT, read, write_results


def made(folder, **grid):
    results = read(folder, write_results(folder, **grid))
    (block,) = blocks(score_groups(results, REPORT.bootstrap))
    return results, block


def off_by(offsets):
    """Return predictions that are `offsets[model]` too high."""
    return lambda model, rate, seed, label: label + offsets[model]


def line(table, label, group=None):
    return next(li for li in table.lines if li.label == label and group in (None, li.group))


def test_a_table_per_score_with_the_best_in_bold(tmp_path):
    """MAE is 0.5 for MIT-FRNet and 0.25 for TFN, and lower is better."""
    offsets = {"mitfrnet": 0.5, "tfn": 0.25}
    _, block = made(tmp_path, others=("tfn",), rates=(0.1, 0.2), predict=off_by(offsets))
    tables = {t.name: t for t in study.score_tables(block, REPORT.bootstrap)}
    assert list(tables)[:2] == ["scores_one_acc2_has0", "scores_one_f1_has0"]
    mae = tables["scores_one_mae"]
    assert mae.heads == ("Predictor", "0.1", "0.2")
    assert [(e.text, e.bold) for e in line(mae, "TFN").entries] == [("0.250", True)] * 2
    assert [(e.text, e.bold) for e in line(mae, "MIT-FRNet").entries] == [("0.500", False)] * 2
    assert "Table 4" in mae.caption
    assert mae.notes[0] == "12 test clips, one run of each model."
    assert "95 % interval over 50 resamples" in mae.page_note
    first = mae.records[0]
    assert (first["predictor"], first["mean"], first["runs"], first["test_clips"]) == (
        "mitfrnet", pytest.approx(0.5), 1, 12
    )  # fmt: skip


def test_runs_are_told(tmp_path):
    _, block = made(tmp_path, seeds=(1, 2, 3), mask_seeds=(1, 2), tested=(0.3,))
    assert study.runs_note(block) == (
        "12 test clips; mean ± standard deviation over 6 runs of each model "
        "(3 training seeds by 2 mask seeds)."
    )


def test_averages_name_the_rates_they_leave_out(tmp_path):
    def predict(model, rate, seed, label):
        return 0 * label + 0.5 if rate == 0.2 else label + 1

    _, block = made(tmp_path, rates=(0.1, 0.2), predict=predict)
    table = study.average_table(block)
    entry = line(table, "MIT-FRNet", "Plain mean").entries[-1]
    assert (entry.text, entry.flags) == ("1.000", ("without 0.2",))
    assert line(table, "MIT-FRNet").flags == ("constant at 0.2",)
    assert line(table, "Majority class").flags == ("constant at every rate",)
    printed = line(table, "MIT-FRNet", "MWA as the paper prints it").entries[-2]
    assert printed.text == "-"
    corr = next(r for r in table.records if r["metric"] == "corr")
    assert (corr["skipped_rates"], corr["rates"]) == ("0.2", 2)
    headline = study.headline_average_table(block)
    assert headline.heads[1] == "Acc-2 % ↑"
    assert len(headline.lines) == 4


def test_ablation_shows_the_difference_and_its_side(tmp_path):
    """Without MMR the MAE is 0.75, 0.25 more than the whole: worse. Without MITR 0.25: better."""
    offsets = {"mitfrnet": 0.5, "mitfrnet_no_mmr": 0.75, "mitfrnet_no_mitr": 0.25}
    results, block = made(tmp_path, models=tuple(offsets), predict=off_by(offsets))
    table = study.ablation_table(results, block)
    mae = table.heads.index("MAE ↓") - 1
    assert [li.entries[mae].text for li in table.lines] == [
        "0.500",
        "0.750 (+0.250 ↓)",
        "0.250 (-0.250 ↑)",
    ]
    assert [li.group for li in table.lines][1:] == [
        "MIT-FRNet without MMR",
        "MIT-FRNet without MITR",
    ]
    corr = table.heads.index("Corr ↑") - 1
    assert table.lines[1].entries[corr].text == "1.000 (0.000)"


def test_a_variant_is_compared_with_the_model_of_its_other_settings(tmp_path):
    """A wider model stands first in the grid; without MMR is 0.25 worse than the plain one."""
    offsets = {"mitfrnet_wide": 3.0, "mitfrnet": 0.5, "mitfrnet_no_mmr": 0.75}
    results, block = made(tmp_path, models=tuple(offsets), predict=off_by(offsets))
    for cell in results.select("one", "mitfrnet_wide"):
        cell.config["settings"]["dim"] = 60
    table = study.ablation_table(results, block)
    mae = table.heads.index("MAE ↓") - 1
    assert [li.entries[mae].text for li in table.lines] == ["0.500", "0.750 (+0.250 ↓)"]


def test_no_ablation_without_a_whole_or_a_part(tmp_path):
    for i, models in enumerate([("mitfrnet",), ("mitfrnet_no_mmr",)]):
        results, block = made(tmp_path / str(i), models=models, others=("tfn",))
        assert study.ablation_table(results, block) is None


def test_paired_tests_are_bold_where_small_and_name_constants(tmp_path):
    def predict(model, rate, seed, label):
        return 0 * label + 0.5 if model == "tfn" else label

    _, block = made(tmp_path, others=("tfn",), predict=predict)
    (mae,) = (c for c in block.groups[0].columns if c.key == "mae")
    found = comparisons(block, "mae", 999, REPORT.bootstrap)
    table = study.paired_table(block, mae, found, 999, 0.95)
    (entry,) = table.lines[0].entries
    assert entry.bold
    assert entry.text.startswith("-1.6")
    assert entry.flags == ("TFN: constant",)
    assert table.heads == ("MIT-FRNet minus", "0.3")
    assert "all 1 tests" in table.notes[1]
    assert "0.001" in table.notes[1]


def test_a_correlation_that_is_not_defined_cannot_be_compared(tmp_path):
    _, block = made(tmp_path, others=("tfn",), predict=lambda m, r, s, label: 0 * label)
    (corr,) = (c for c in block.groups[0].columns if c.key == "corr")
    found = comparisons(block, "corr", 50, REPORT.bootstrap)
    table = study.paired_table(block, corr, found, 50, 0.95)
    assert table.lines[0].entries[0].text == "-"
    assert table.records[0]["p_value"] is None
