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


@pytest.mark.parametrize("label", ["Joy", "", "1", "fear"])
def test_an_unknown_class_is_named_with_its_line_and_the_known_ones(tmp_path, label):
    folder = write_corpus(tmp_path, [("v", "1", "x", label, "train")])
    assert refusal(folder, EMOTIONS) == (
        f"label.csv:2: label is {label!r}, not a class of this corpus (expected anger, joy, sadness)"
    )


def test_a_clip_is_found_in_any_container_but_not_its_sidecar(tmp_path):
    write_corpus(tmp_path, [ROW])
    folder = tmp_path / "Raw" / "v1"
    folder.mkdir(parents=True)
    for name in ("0001.txt", "0001.webm", "00010.mp4"):
        (folder / name).touch()
    assert read_one(tmp_path).path == "Raw/v1/0001.webm"


def test_two_files_of_one_clip_are_an_error(tmp_path):
    write_corpus(tmp_path, [ROW])
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    for name in ("0001.mp4", "0001.avi"):
        (tmp_path / "Raw" / "v1" / name).touch()
    assert refusal(tmp_path, MOSI) == (
        "label.csv:2: several files for Raw/v1/0001: Raw/v1/0001.avi, Raw/v1/0001.mp4 (keep one)"
    )


def test_the_corpus_may_be_a_link_but_not_lead_out_by_one(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [ROW])
    (corpus / "Raw" / "v1").mkdir(parents=True)
    (corpus / "Raw" / "v1" / "0001.mp4").touch()
    (tmp_path / "link").symlink_to(corpus)
    assert read_one(tmp_path / "link").path == "Raw/v1/0001.mp4"

    (corpus / "Raw" / "v1" / "0001.mp4").unlink()
    (tmp_path / "secret.mp4").touch()
    (corpus / "Raw" / "v1" / "0001.mp4").symlink_to(tmp_path / "secret.mp4")
    assert "label.csv:2: Raw/v1/0001.mp4 leads out" in refusal(corpus, MOSI)


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


def test_a_link_to_itself_is_left_to_the_probe(tmp_path):
    write_corpus(tmp_path, [ROW])
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    (tmp_path / "Raw" / "v1" / "0001.mp4").symlink_to("0001.mp4")
    assert read_one(tmp_path).path == "Raw/v1/0001.mp4"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("v1", "1", "x", "1", "dev"), "label.csv:2: mode is 'dev' (expected train, valid, test)"),
        (("v1", "1", "x", "3.2", "train"), "label is 3.2, out of scale (expected a number in [-3"),
        (("v1", "1", "x", "nan", "train"), "label is nan, out of scale"),
        (("v1", "1", "x", "good", "train"), "label is 'good', not a number"),
        (("v1", "1", "x", "", "train"), "label is '', not a number"),
        (("../v1", "1", "x", "1", "train"), "video_id is '../v1' (expected a file name"),
        (("..", "1", "x", "1", "train"), "video_id is '..'"),
        (("v1", "/etc/passwd", "x", "1", "train"), "clip_id is '/etc/passwd'"),
        (("v1", "", "x", "1", "train"), "clip_id is ''"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the table of labels"),
        (b"", "missing column video_id"),
        (b"video_id,clip_id,label\nv,1,1\n", "missing column text"),
        (b"video_id,clip_id,text,label\n", "no rows"),
        (b"video_id,clip_id,text,label\nv,1,caf\xe9,1\n", "label.csv:2: byte 0xe9 is not utf-8"),
        (b'video_id,clip_id,text,label\nv,1,"open,1\n', "not a CSV row"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "label.csv").write_bytes(content)
    assert message in refusal(tmp_path, MOSI)


def test_a_table_of_another_encoding_is_read_where_the_block_says_so(tmp_path):
    content = "video_id,clip_id,text,label,mode\nv,1,caf\u00e9,1,train\n".encode("latin-1")
    (tmp_path / "label.csv").write_bytes(content)
    assert read_one(tmp_path, MOSI | {"encoding": "latin-1"}).transcript == "caf\u00e9"


def test_a_byte_order_mark_and_quoted_commas_are_read(tmp_path):
    text = '\ufeffvideo_id,clip_id,text,label,mode\r\nv,1,"well, ""fine""",1,train\r\n'
    (tmp_path / "label.csv").write_bytes(text.encode("utf-8"))
    assert read_one(tmp_path).transcript == 'well, "fine"'
