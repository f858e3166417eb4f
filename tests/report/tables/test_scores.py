import pytest

from mitfrnet.report.tables.scores import headline_table, runs_note, score_tables
from tests.helpers.made_results import REPORT, make_block


def test_a_table_per_score_with_the_best_in_bold(tmp_path):
    """MAE is 0.5 for MIT-FRNet and 0.25 for TFN, and lower is better."""
    offsets = {"mitfrnet": 0.5, "tfn": 0.25}
    _, block = make_block(
        tmp_path,
        models=tuple(offsets),
        rates=(0.1, 0.2),
        predict=lambda model, rate, seed, label: label + offsets[model],
    )
    tables = {table.name: table for table in score_tables(block, REPORT.bootstrap)}
    assert list(tables)[:2] == ["scores_one_acc2_has0", "scores_one_f1_has0"]
    mae = tables["scores_one_mae"]
    assert mae.heads == ("Predictor", "0.1", "0.2")
    shown = {line.label: [(e.text, e.bold) for e in line.entries] for line in mae.lines}
    assert shown["TFN"] == [("0.250", True)] * 2
    assert shown["MIT-FRNet"] == [("0.500", False)] * 2
    assert "Table 4" in mae.caption
    assert mae.notes[0] == "12 test clips, one run of each model."
    assert "95 % interval over 50 resamples" in mae.page_note
    first = mae.records[0]
    assert (first["predictor"], first["mean"], first["runs"], first["test_clips"]) == (
        "mitfrnet", pytest.approx(0.5), 1, 12
    )  # fmt: skip


def test_the_headline_table_warns_of_a_constant_beside_the_name_alone(tmp_path):
    _, block = make_block(tmp_path, predict=lambda m, r, s, label: 0 * label + 1.5)
    table = headline_table(block.groups, REPORT.bootstrap)
    line = table.lines[0]
    assert (line.label, line.group) == ("MIT-FRNet", "Missing rate 0.3")
    assert line.flags == ("constant prediction",)
    flags = {head: entry.flags for head, entry in zip(table.heads[1:], line.entries, strict=True)}
    assert flags["Acc-2 % ↑"] == ("= majority",)
    assert flags["MAE ↓"] == ()


def test_runs_are_counted(tmp_path):
    _, block = make_block(tmp_path, seeds=(1, 2, 3), mask_seeds=(1, 2), tested=(0.3,))
    assert runs_note(block.groups[0]) == (
        "12 test clips; mean ± standard deviation over 6 runs of each model "
        "(3 training seeds by 2 mask seeds)."
    )
