import pytest

from tests.helpers.clips import write_corpus
from tests.helpers.reading import read, refusal

MOSI = {"layout": "mmsa", "scale": "mosi"}
EMOTIONS = {"layout": "mmsa", "task": "classification", "classes": ["anger", "joy", "sadness"]}
ROW = ("v1", "0001", "so good", "1.5", "train")


def read_one(folder, block=MOSI):
    (clip,), errors, _ = read(folder, block)
    assert errors == []
    return clip


def test_ids_keep_leading_zeros_and_labels_are_read(tmp_path):
    columns = ("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode")
    write_corpus(tmp_path, [("007", "0001", " so good ", "-2.5", "1", "", "-3", "test")], columns)
    clip = read_one(tmp_path)
    assert clip.utterance_id == "007/0001"
    assert (clip.transcript, clip.transcript_source) == ("so good", "table")
    assert clip.label == -2.5
    assert clip.modality_labels == {"text": 1.0, "visual": -3.0}
    assert clip.split == "test"
    assert (clip.path, clip.stem) == (None, "Raw/007/0001")


def test_the_clip_lies_in_raw_under_its_ids(tmp_path):
    write_corpus(tmp_path, [ROW])
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    (tmp_path / "Raw" / "v1" / "0001.webm").touch()
    assert read_one(tmp_path).path == "Raw/v1/0001.webm"


def test_the_older_table_of_7_columns_is_read(tmp_path):
    columns = ("video_id", "clip_id", "text", "label", "annotation", "mode", "label_by")
    write_corpus(tmp_path, [("v", "1", "x", "0.5", "Negative", "valid", "3")], columns)
    assert (read_one(tmp_path).label, read_one(tmp_path).split) == (0.5, "valid")


def test_class_names_become_indices(tmp_path):
    columns = ("video_id", "clip_id", "text", "label", "label_T", "mode")
    rows = [("v", "1", "x", " joy ", "sadness", "train"), ("v", "2", "x", "anger", "", "train")]
    (first, second), _, _ = read(write_corpus(tmp_path, rows, columns), EMOTIONS)
    assert (first.label, second.label) == (1.0, 0.0)
    assert first.modality_labels == {"text": 2.0}


def test_the_table_and_the_folder_of_clips_may_not_be_links_that_lead_out(tmp_path):
    outside = write_corpus(tmp_path / "outside", [ROW])
    (outside / "v1").mkdir()
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "label.csv").symlink_to(outside / "label.csv")
    assert "label.csv leads out of the corpus folder" in refusal(corpus, MOSI)
    (corpus / "label.csv").unlink()
    write_corpus(corpus, [ROW])
    (corpus / "Raw").symlink_to(outside)
    assert "label.csv:2: Raw/v1/0001 leads out of the corpus folder" in refusal(corpus, MOSI)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("v1", "1", "x", "1", "dev"), "label.csv:2: mode is 'dev' (expected train, valid, test)"),
        (("v1", "1", "x", "3.2", "train"), "label is 3.2, out of scale (expected a number in [-3"),
        (("../v1", "1", "x", "1", "train"), "video_id is '../v1' (expected a file name"),
        (("v1", "/etc/passwd", "x", "1", "train"), "clip_id is '/etc/passwd'"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, message):
    assert message in refusal(write_corpus(tmp_path, [row]), MOSI)


def test_all_bad_rows_are_noted_and_the_good_ones_read(tmp_path):
    rows = [ROW, ("v1", "2", "x", "9", "test"), ("v1", "3", "x", "", "test"), ROW]
    (clip,), errors, _ = read(write_corpus(tmp_path, rows), MOSI)
    assert clip.clip_id == "0001"
    assert [error.partition(": ")[0] for error in errors] == [
        "label.csv:3",
        "label.csv:4",
        "label.csv:5",
    ]
    assert "; and 2 more errors (mitfrnet validate" in refusal(tmp_path, MOSI)


def test_a_duplicate_id_names_both_lines(tmp_path):
    write_corpus(tmp_path, [ROW, ("v1", "2", "", "0", "test"), ROW])
    assert "label.csv:4: duplicate id 'v1/0001', first used in line 2" in refusal(tmp_path, MOSI)


def test_a_table_of_another_encoding_is_read_where_the_block_says_so(tmp_path):
    content = "video_id,clip_id,text,label,mode\nv,1,caf\u00e9,1,train\n".encode("latin-1")
    (tmp_path / "label.csv").write_bytes(content)
    assert read_one(tmp_path, MOSI | {"encoding": "latin-1"}).transcript == "caf\u00e9"


def test_a_table_lacks_a_column(tmp_path):
    (tmp_path / "label.csv").write_text("video_id,clip_id,label\nv,1,1\n")
    assert refusal(tmp_path, MOSI) == (
        "label.csv: missing column text (found: video_id, clip_id, label; "
        "required: video_id, clip_id, text, label)"
    )
