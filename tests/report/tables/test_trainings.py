from mitfrnet.report.scores import model_names
from mitfrnet.report.tables.trainings import timing_table, training_table
from tests.helpers.made_results import make_results


def test_seconds_per_epoch_are_means_over_seeds(tmp_path):
    """The seconds of seed s are 1.5 + s / 4 + 1, where 1 comes from the 8 letters of mitfrnet."""
    results = make_results(tmp_path, rates=(0.1, "random_train"), seeds=(1, 2), tested=(0.0,))
    table = timing_table(results, "one", model_names(results))
    assert table.heads[-2:] == ("s at 0.1", "s at random train")
    texts = [entry.text for entry in table.lines[0].entries]
    assert texts == ["1,549,249", "512", "20", "2.88 ± 0.18", "2.88 ± 0.18"]
    assert "cpu, 1 thread." in table.notes[0]
    assert table.records[0]["seconds_per_epoch"] == 2.75


def test_training_runs(tmp_path):
    """From epoch e to e + 1 the loss falls by 0.08 * 0.9 ** e and rises by 0.02: best is e = 14."""
    results = make_results(tmp_path, seeds=(1, 2))
    table = training_table(results, "one", model_names(results))
    assert [entry.text for entry in table.lines[1].entries[:5]] == ["0.3", "2", "30", "20", "15"]
    assert table.title == "All 2 training runs"
