import pytest

from tests.helpers.reading import read, refusal

SENTIMENT = {"layout": "meld", "label": "sentiment", "task": "classification",
             "classes": ["negative", "neutral", "positive"]}  # fmt: skip
EMOTION = SENTIMENT | {
    "label": "emotion",
    "classes": ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"],
}
HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)
TIMES = '"00:14:38,127","00:14:40,378"'
CLIPS = {"train": "train_splits", "dev": "dev_splits_complete",
         "test": "output_repeated_splits_test"}  # fmt: skip


def write(folder, tables="{split}_sent_emo.csv", clips="{clips}"):
    """Write a dialogue of two utterances per split, and the clips of the first ones."""
    for split, name in CLIPS.items():
        table = folder / tables.format(split=split)
        table.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f'1,"So, I\u2019m in {split}",Mark,joy,positive,0,0,3,19,{TIMES}',
            f"2,Y'know what?,Rachel,anger,negative,0,1,3,19,{TIMES}",
        ]
        table.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
        clip = folder / clips.format(split=split, clips=name) / "dia0_utt0.mp4"
        clip.parent.mkdir(parents=True)
        clip.touch()
        (clip.parent / "._dia0_utt1.mp4").touch()
    return folder


def test_dialogues_of_the_same_number_are_told_apart_by_their_split(tmp_path):
    clips, errors, warnings = read(write(tmp_path), SENTIMENT)
    assert [(c.utterance_id, c.split, c.split_group, c.label, c.path) for c in clips] == [
        ("dev_dia0/utt0", "valid", "dev_dia0", 2.0, "dev_splits_complete/dia0_utt0.mp4"),
        ("dev_dia0/utt1", "valid", "dev_dia0", 0.0, None),
        ("test_dia0/utt0", "test", "test_dia0", 2.0, "output_repeated_splits_test/dia0_utt0.mp4"),
        ("test_dia0/utt1", "test", "test_dia0", 0.0, None),
        ("train_dia0/utt0", "train", "train_dia0", 2.0, "train_splits/dia0_utt0.mp4"),
        ("train_dia0/utt1", "train", "train_dia0", 0.0, None),
    ]
    assert clips[0].transcript == "So, I\u2019m in dev"
    assert clips[1].stem == "dev_splits_complete/dia0_utt1"
    assert errors == warnings == []


def test_the_emotion_is_the_label_where_the_block_says_so(tmp_path):
    clips, _, _ = read(write(tmp_path), EMOTION)
    assert [c.label for c in clips] == [3.0, 0.0] * 3


@pytest.mark.parametrize(
    ("tables", "clips"),
    [
        ("MELD.Raw/{split}_sent_emo.csv", "MELD.Raw/{clips}"),
        ("MELD.Raw/{split}_sent_emo.csv", "MELD.Raw/{split}/{clips}"),
        ("{split}/{split}_sent_emo.csv", "{split}/{clips}"),
        ("{split}_sent_emo.csv", "MELD.Raw/{split}/{clips}"),
    ],
)
def test_tables_and_clips_are_found_however_the_archive_was_unpacked(tmp_path, tables, clips):
    result, _, _ = read(write(tmp_path, tables, clips), SENTIMENT)
    assert [c.path is not None for c in result] == [True, False] * 3


def test_of_two_files_of_a_test_clip_the_corrected_one_is_taken(tmp_path):
    folder = write(tmp_path)
    for split in ("test", "train"):
        (folder / CLIPS[split] / "final_videos_testdia0_utt0.mp4").touch()
    paths = {c.utterance_id: c.path for c in read(folder, SENTIMENT)[0]}
    assert paths["test_dia0/utt0"] == f"{CLIPS['test']}/final_videos_testdia0_utt0.mp4"
    assert paths["train_dia0/utt0"] == f"{CLIPS['train']}/dia0_utt0.mp4"


def test_marks_that_were_decoded_wrongly_are_mended(tmp_path):
    """U+0092 is the apostrophe of cp1252, read as Latin-1; U+0081 is undefined in it."""
    folder = write(tmp_path)
    row = f"1,I\u0092m here\u0085 \u0081,Mark,joy,positive,0,0,3,19,{TIMES}"
    (folder / "train_sent_emo.csv").write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    clips, _, _ = read(folder, SENTIMENT)
    assert clips[-1].transcript == "I\u2019m here\u2026 \u0081"


def test_a_table_that_is_not_there_is_named(tmp_path):
    folder = write(tmp_path)
    (folder / "dev_sent_emo.csv").unlink()
    assert refusal(folder, SENTIMENT) == (
        "dev_sent_emo.csv: No such file or directory (expected the table of labels)"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "1,x,Mark,joy,good,0,0",
            "train_sent_emo.csv:2: Sentiment is 'good', not a class of this cor",
        ),
        ("1,x,Mark,joy,positive,../0,0", "train_sent_emo.csv:2: Dialogue_ID is '../0' (expected"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, message):
    folder = write(tmp_path)
    header = ",".join(HEADER.split(",")[:7])
    (folder / "train_sent_emo.csv").write_text(f"{header}\n{row}\n")
    assert message in refusal(folder, SENTIMENT)
