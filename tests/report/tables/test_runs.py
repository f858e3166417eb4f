from mitfrnet.report.tables.runs import mask_table, timing_table, training_table
from mitfrnet.report.tables.scores import model_names
from tests.helpers.made_results import read, write_results


def test_seconds_per_epoch_are_means_over_seeds(tmp_path):
    """The made-up time of seed s is 1.5 + s / 4 + 1 for the eight letters of mitfrnet."""
    grid = write_results(tmp_path, rates=(0.1, "random_train"), seeds=(1, 2), tested=(0.0,))
    results = read(tmp_path, grid)
    table = timing_table(results, "one", model_names(results))
    assert table.heads[-2:] == ("s at 0.1", "s at random train")
    texts = [entry.text for entry in table.lines[0].entries]
    assert texts == ["1,549,249", "512", "20", "2.88 ± 0.18", "2.88 ± 0.18"]
    assert "cpu, 1 thread." in table.notes[0]
    assert table.records[0]["seconds_per_epoch"] == 2.75


def test_training_runs(tmp_path):
    """From epoch e (from 0) on, the loss gains 0.08 * 0.9 ** e and loses 0.02: best at e = 14."""
    results = read(tmp_path, write_results(tmp_path, seeds=(1, 2)))
    table = training_table(results, "one", model_names(results))
    assert [entry.text for entry in table.lines[1].entries[:5]] == ["0.3", "2", "30", "20", "15"]
    assert table.title == "All 2 training runs"


def test_masks_of_a_rate_and_of_a_protocol(tmp_path):
    grid = write_results(tmp_path, rates=(0.3, "complete_train"), tested=(0.0,))
    corpus = read(tmp_path, grid).corpora[0]
    corpus.masks[0.3]["params"]["scale_factors"]["text"] = 0.5
    for split in ("train", "valid", "test"):
        del corpus.masks["complete_train"]["realised"][split]["text"]["asked"]
        corpus.masks["complete_train"]["realised"][split]["visual"]["clips_hidden"] = 7
    table = mask_table(corpus)
    assert [heading for heading, _ in table.grouped] == [
        "Missing rate 0.3, pattern random, seed 1, rate of text times 0.5",
        "Trained on complete clips, pattern random, seed 1",
    ]
    assert len(table.heads) == 1 + 5 * 3
    first, *_, last = table.lines
    assert [e.text for e in first.entries[::3]] == ["30.0 %", "30.0 %", "36.2 %", "3", "-"]
    assert last.entries[-1].text == "7"
