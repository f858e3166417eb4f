from mitfrnet.report.tables.masks import mask_table
from tests.helpers.made_results import make_results


def test_masks_of_a_rate_and_of_a_protocol(tmp_path):
    results = make_results(tmp_path, rates=(0.3, "complete_train"), tested=(0.0,))
    corpus = results.corpora[0]
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


def test_masks_that_are_drawn_anew_have_a_dash_and_a_note(tmp_path):
    corpus = make_results(tmp_path).corpora[0]
    assert mask_table(corpus).notes == ()
    del corpus.masks[0.3]["realised"]["train"]
    table = mask_table(corpus)
    assert [entry.text for entry in table.lines[0].entries[:3]] == ["-", "30.0 %", "30.0 %"]
    assert "A dash stands for masks" in table.notes[0]
