import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.reading import read, refusal

COLUMNS = {"video_id": "vid", "clip_id": "take", "text": "said", "label": "score", "split": "fold"}
HEADER = "vid,take,said,score,fold"
SEGMENTS = {"label": "score", "path": "file", "start": "from", "end": "to", "split": "fold"}


def block(columns=COLUMNS, path="{video_id}/{clip_id}.*", file="clips.csv", **settings):
    table = {"file": file, "columns": columns}
    if "path" not in columns:
        table["path"] = path
    if "splits" in settings:
        table["splits"] = settings.pop("splits")
    return {"layout": "table", "scale": "mosi", "table": table} | settings


def write(folder, *lines, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clips.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def read_without_errors(folder, its_block):
    clips, errors, _ = read(folder, its_block)
    assert errors == []
    return clips


def test_columns_are_named_in_the_block_and_the_pattern_takes_either_name(tmp_path):
    touch(write(tmp_path, '007,01," so, good ",1.5,train'), "007/01.webm", "007/01.mp4.txt")
    for pattern in ("{video_id}/{clip_id}.*", "{vid}/{take}.*", "{video_id}/{take}.webm"):
        (clip,) = read_without_errors(tmp_path, block(path=pattern))
        assert (clip.where, clip.utterance_id) == (f"{tmp_path}/clips.csv:2", "007/01")
        assert (clip.path, clip.stem) == ("007/01.webm", "007/01")
        assert (clip.transcript, clip.transcript_source) == ("so, good", "table")
        assert (clip.label, clip.split, clip.group) == (1.5, "train", None)
        assert (clip.start_s, clip.end_s) == (None, None)


def test_any_other_column_may_stand_in_the_pattern(tmp_path):
    touch(write(tmp_path, "v,1,x,0,train,ann", header=HEADER + ",who"), "ann/v-1.mp4")
    (clip,) = read_without_errors(tmp_path, block(path="{who}/{vid}-{take}.mp4"))
    assert clip.path == "ann/v-1.mp4"


def test_a_clip_without_file_keeps_its_row(tmp_path):
    write(tmp_path, "v,1,,0,train", "v,2,x,0,train")
    for pattern in ("{vid}/{take}.*", "{vid}/{take}.mp4"):
        clips = read_without_errors(tmp_path, block(path=pattern))
        assert [(c.path, c.stem) for c in clips] == [(None, "v/1"), (None, "v/2")]
        assert [c.transcript_source for c in clips] == [None, "table"]


def test_labels_of_modalities_groups_and_names_of_splits_are_read(tmp_path):
    header = HEADER + ",t,a,v,speaker"
    write(tmp_path, "v,1,x,0,dev,1,,-2,ann", "v,2,x,0,learn,,,,", header=header)
    columns = COLUMNS | {"label_text": "t", "label_acoustic": "a", "label_visual": "v"}
    its_block = block(columns | {"group": "speaker"}, splits={"train": "learn", "valid": "dev"})
    first, second = read_without_errors(tmp_path, its_block)
    assert (first.modality_labels, second.modality_labels) == ({"text": 1.0, "visual": -2.0}, {})
    assert (first.split_group, second.split_group) == ("ann", "v")
    assert (first.split, second.split) == ("valid", "train")
    assert "clips.csv:2: fold is 'dev' (expected learn, valid, test)" in refusal(
        tmp_path, block(columns, splits={"train": "learn"})
    )


def test_labels_may_be_names_of_classes(tmp_path):
    write(tmp_path, "v,1,x,joy,train")
    (clip,) = read_without_errors(
        tmp_path, block(scale=None, task="classification", classes=["anger", "joy"])
    )
    assert clip.label == 1.0


def test_an_unlabelled_table_without_splits_is_a_test_split(tmp_path):
    write(tmp_path, "v,1,x,0,train")
    columns = {"video_id": "vid", "clip_id": "take"}
    (clip,) = read_without_errors(tmp_path, block(columns, scale=None, task="unlabelled"))
    assert (clip.label, clip.split) == (None, "test")
    columns |= {"split": "fold"}
    (clip,) = read_without_errors(tmp_path, block(columns, scale=None, task="unlabelled"))
    assert clip.split == "train"


@pytest.mark.parametrize(
    ("path", "utterance_id"),
    [("ann/1.mp4", "ann/1"), ("./ann//2020/1.mp4", "ann-2020/1"), ("1.mp4", "corpus/1")],
)
def test_ids_without_columns_follow_from_the_path(tmp_path, path, utterance_id):
    folder = write(tmp_path / "corpus", f"{path},1,train", header="file,score,fold")
    touch(folder, path)
    columns = {"path": "file", "label": "score", "split": "fold"}
    (clip,) = read_without_errors(folder, block(columns))
    assert clip.utterance_id == utterance_id
    assert (folder / clip.path).is_file()


def test_segments_of_a_file_are_numbered_by_their_start(tmp_path):
    """Rows 3 and 4 lie before row 2 in a.mp4; b.mp4 has its own numbers and no times."""
    header = "file,from,to,score,fold"
    write(tmp_path, "d/a.mp4,9,10,1,train", "d/a.mp4,00:02.5,00:04,2,train",
          "d/a.mp4,,1,3,train", "d/b.mp4,,,0,test", header=header)  # fmt: skip
    touch(tmp_path, "d/a.mp4", "d/b.mp4")
    clips = read_without_errors(tmp_path, block(SEGMENTS))
    assert [(c.utterance_id, c.label, c.start_s, c.end_s) for c in clips] == [
        ("d-a/0001", 3.0, None, 1.0),
        ("d-a/0002", 2.0, 2.5, 4.0),
        ("d-a/0003", 1.0, 9.0, 10.0),
        ("d-b/0001", 0.0, None, None),
    ]
    assert [c.path for c in clips] == ["d/a.mp4"] * 3 + ["d/b.mp4"]


def test_segments_with_ids_keep_them(tmp_path):
    write(tmp_path, "v,7,a.mp4,0,1,1,train", header="vid,take,file,from,to,score,fold")
    (clip,) = read_without_errors(
        tmp_path, block(SEGMENTS | {"video_id": "vid", "clip_id": "take"})
    )
    assert clip.utterance_id == "v/7"


def test_the_same_segment_twice_is_an_error(tmp_path):
    header = "file,from,to,score,fold"
    write(tmp_path, "a.mp4,1,2,1,train", "a.mp4,1,2,1,train", header=header)
    assert "clips.csv:3: the same segment as " in refusal(tmp_path, block(SEGMENTS))


def test_a_row_without_path_has_no_file_but_needs_ids(tmp_path):
    header = "file,vid,take,score,fold"
    write(tmp_path, ",v,1,0,train", header=header)
    columns = {"path": "file", "label": "score", "split": "fold"}
    (clip,) = read_without_errors(tmp_path, block(columns | {"video_id": "vid", "clip_id": "take"}))
    assert (clip.utterance_id, clip.path, clip.stem) == ("v/1", None, None)
    assert "clips.csv:2: path is '' (expected a file name" in refusal(tmp_path, block(columns))


def test_labels_of_parquet_that_are_nan_are_errors_and_times_that_are_nan_are_empty(tmp_path):
    nan = float("nan")
    table = {"file": ["a.mp4", "b.mp4"], "score": [nan, 1.0], "from": [0.5, nan], "to": [nan, nan],
             "fold": ["test", "test"]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "clips.parquet")
    (clip,), (error,), _ = read(tmp_path, block(SEGMENTS, file="clips.parquet"))
    assert error == ("clips.parquet:1: score is '', not a number (expected a number in [-3, 3])")
    assert (clip.utterance_id, clip.start_s, clip.end_s) == ("b/0001", None, None)


def test_ids_that_became_numbers_with_a_point_are_errors(tmp_path):
    table = {"vid": ["v"], "take": [7.0], "said": ["x"], "score": [1], "fold": ["test"]}
    pq.write_table(pa.table(table), tmp_path / "clips.parquet")
    assert "clips.parquet:1: take is the number 7.0 (expected text or a whole number" in refusal(
        tmp_path, block(file="clips.parquet")
    )


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write(tmp_path, "v,1,x,0,train")
    assert refusal(tmp_path, block(path="{who}/{take}.mp4")) == (
        "clips.csv: missing column who (found: vid, take, said, score, fold; "
        "required: fold, said, score, take, vid, who)"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("..,1,x,0,train", "clips.csv:2: vid is '..' (expected a file name"),
        ('v,1,x,"1,5",train', "clips.csv:2: score is '1,5', not a number (expected a number in ["),
        ("v,1,x,0,", "clips.csv:2: fold is '' (expected train, valid, test)"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, message):
    assert message in refusal(write(tmp_path, line), block())


@pytest.mark.parametrize(
    ("path", "start", "end", "message"),
    [
        ("../a.mp4", "0", "1", "clips.csv:2: ../a.mp4 leads out of the corpus folder"),
        ("out.mp4", "0", "1", "clips.csv:2: out.mp4 leads out of the corpus folder"),
        ("a.mp4", "-1", "1", "clips.csv:2: from is '-1' (expected seconds from the video's start"),
    ],
)
def test_a_bad_path_or_time_is_named_with_its_line(tmp_path, path, start, end, message):
    folder = write(
        tmp_path / "x", f"{path},{start},{end},0,train", header="file,from,to,score,fold"
    )
    touch(tmp_path, "outside.mp4")
    (folder / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    assert message in refusal(folder, block(SEGMENTS))


def test_values_of_a_pattern_may_not_lead_out(tmp_path):
    folder = write(tmp_path / "x", "v,1,x,0,train,../..", header=HEADER + ",who")
    assert "clips.csv:2: ../../1 leads out of the corpus folder" in refusal(
        folder, block(path="{who}/{take}.*")
    )


@pytest.mark.parametrize("file", ["../clips.csv", "/etc/hosts.csv", "link.csv"])
def test_the_table_may_not_lie_outside(tmp_path, file):
    write(tmp_path, "v,1,x,0,train")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link.csv").symlink_to(tmp_path / "clips.csv")
    assert f"{file} leads out of the corpus folder" in refusal(
        tmp_path / "corpus", block(file=file)
    )


def test_a_table_of_another_encoding_is_read_where_the_block_says_so(tmp_path):
    (tmp_path / "clips.csv").write_bytes(f"{HEADER}\nv,1,caf\u00e9,0,train\n".encode("latin-1"))
    assert "clips.csv:2: byte 0xe9 is not utf-8" in refusal(tmp_path, block())
    (clip,) = read_without_errors(tmp_path, block(encoding="latin-1"))
    assert clip.transcript == "caf\u00e9"
