import pytest

from mitfrnet.corpus.layouts import read_mmsa
from mitfrnet.errors import CorpusError
from mitfrnet.metrics import SCALES, ClassScale
from tests.clips import write_corpus

MOSI = SCALES["mosi"]
EMOTIONS = ClassScale(classes=["anger", "joy", "sadness"])
ROW = ("v1", "0001", "so good", "1.5", "train")


def read(folder):
    return read_mmsa(folder, MOSI)


def test_ids_keep_leading_zeros_and_labels_are_read(tmp_path):
    columns = ("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode")
    write_corpus(tmp_path, [("007", "0001", " so good ", "-2.5", "1", "", "-3", "test")], columns)
    (clip,) = read(tmp_path)
    assert clip.utterance_id == "007/0001"
    assert clip.transcript == "so good"
    assert clip.label == -2.5
    assert clip.modality_labels == {"text": 1.0, "visual": -3.0}
    assert clip.split == "test"
    assert clip.path is None


def test_class_names_become_indices(tmp_path):
    columns = ("video_id", "clip_id", "text", "label", "label_T", "mode")
    rows = [("v", "1", "x", " joy ", "sadness", "train"), ("v", "2", "x", "anger", "", "train")]
    first, second = read_mmsa(write_corpus(tmp_path, rows, columns), EMOTIONS)
    assert (first.label, second.label) == (1.0, 0.0)
    assert first.modality_labels == {"text": 2.0}


@pytest.mark.parametrize("label", ["Joy", "", "1", "fear"])
def test_an_unknown_class_is_named_with_its_line_and_the_known_ones(tmp_path, label):
    folder = write_corpus(tmp_path, [("v", "1", "x", label, "train")])
    with pytest.raises(CorpusError) as error:
        read_mmsa(folder, EMOTIONS)
    assert str(error.value) == (
        f"{folder}/label.csv:2: label is {label!r}, no class of this corpus "
        "(expected anger, joy, sadness)"
    )


def test_a_clip_is_found_in_any_container_but_not_its_sidecar(tmp_path):
    write_corpus(tmp_path, [ROW])
    folder = tmp_path / "Raw" / "v1"
    folder.mkdir(parents=True)
    for name in ("0001.txt", "0001.webm", "00010.mp4"):
        (folder / name).touch()
    assert read(tmp_path)[0].path == "Raw/v1/0001.webm"


def test_two_files_of_one_clip_are_an_error(tmp_path):
    write_corpus(tmp_path, [ROW])
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    for name in ("0001.mp4", "0001.avi"):
        (tmp_path / "Raw" / "v1" / name).touch()
    with pytest.raises(CorpusError, match=r"label\.csv:2: several files for v1/0001: .*0001\.avi"):
        read(tmp_path)


def test_the_corpus_may_be_a_link_but_not_lead_out_by_one(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [ROW])
    (corpus / "Raw" / "v1").mkdir(parents=True)
    (corpus / "Raw" / "v1" / "0001.mp4").touch()
    (tmp_path / "link").symlink_to(corpus)
    assert read(tmp_path / "link")[0].path == "Raw/v1/0001.mp4"

    (corpus / "Raw" / "v1" / "0001.mp4").unlink()
    (tmp_path / "secret.mp4").touch()
    (corpus / "Raw" / "v1" / "0001.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(CorpusError, match="leads out of the corpus folder"):
        read(corpus)


def test_a_link_to_itself_is_left_to_the_probe(tmp_path):
    write_corpus(tmp_path, [ROW])
    (tmp_path / "Raw" / "v1").mkdir(parents=True)
    (tmp_path / "Raw" / "v1" / "0001.mp4").symlink_to("0001.mp4")
    assert read(tmp_path)[0].path == "Raw/v1/0001.mp4"


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
    with pytest.raises(CorpusError) as error:
        read(write_corpus(tmp_path, [row]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_duplicate_id_names_both_lines(tmp_path):
    with pytest.raises(CorpusError, match=r"label\.csv:4: duplicate id 'v1/0001', .* line 2"):
        read(write_corpus(tmp_path, [ROW, ("v1", "2", "", "0", "test"), ROW]))


def test_a_missing_column_is_named(tmp_path):
    write_corpus(tmp_path, [("v1", "1", "1")], ("video_id", "clip_id", "label"))
    with pytest.raises(CorpusError, match="missing column text"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the table of labels"),
        (b"", "missing column video_id"),
        (b"video_id,clip_id,text,label\n", "no rows"),
        (b"video_id,clip_id,text,label\nv,1,caf\xe9,1\n", "not UTF-8"),
        (b'video_id,clip_id,text,label\nv,1,"open,1\n', "not a CSV file"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "label.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read(tmp_path)


def test_a_byte_order_mark_and_quoted_commas_are_read(tmp_path):
    text = '\ufeffvideo_id,clip_id,text,label\r\nv,1,"well, ""fine""",1\r\n'
    (tmp_path / "label.csv").write_bytes(text.encode("utf-8"))
    (clip,) = read(tmp_path)
    assert clip.transcript == 'well, "fine"'
    assert clip.split is None
