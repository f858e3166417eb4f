import pytest

from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import ParamsError
from mitfrnet.labels import SCALES
from mitfrnet.params import parse_params

MMSA = {"layout": "mmsa", "language": "en", "scale": "mosi"}
MEDIA = {"layout": "media_only", "language": "en"}
TABLE = MMSA | {
    "layout": "table",
    "table": {"file": "a.csv", "columns": {"label": "y", "path": "file"}},
}
CMU = MMSA | {"layout": "cmu"}
MELD = {
    "layout": "meld",
    "language": "en",
    "label": "sentiment",
    "classes": ["negative", "neutral", "positive"],
}


def parse(block):
    return parse_params(CorpusParams, block, where="corpora.x")


@pytest.mark.parametrize(
    ("block", "task"),
    [
        (MMSA, "regression"),
        (TABLE, "regression"),
        (CMU, "regression"),
        (MELD, "classification"),
        (MEDIA, "unlabelled"),
    ],
)
def test_a_layout_with_labels_of_one_kind_has_its_task_by_itself(block, task):
    corpus = parse(block)
    assert corpus.task == task
    assert corpus.labelled == (task != "unlabelled")


def test_the_scale_is_that_of_scores_or_of_classes_or_none():
    assert parse(MMSA).resolved_scale == SCALES["mosi"]
    assert parse(MELD).resolved_scale.classes == ("negative", "neutral", "positive")
    assert parse(MEDIA).resolved_scale is None


def test_splits_of_a_table_keep_their_names_unless_others_are_given():
    assert parse(TABLE).table.splits == {"train": "train", "valid": "valid", "test": "test"}
    block = TABLE | {"table": TABLE["table"] | {"splits": {"valid": "dev"}}}
    assert parse(block).table.splits == {"train": "train", "valid": "dev", "test": "test"}


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        (MMSA, {"table": TABLE["table"]}, "table: only for layout table, but layout is mmsa"),
        (MMSA, {"task": "unlabelled", "scale": None}, "task: layout mmsa has labels, expected reg"),
        (MMSA, {"label": "sentiment"}, "label: only for layouts cmu and meld, but layout is mmsa"),
        (MMSA, {"encoding": "latin-x"}, "encoding: unknown encoding, expected e.g. utf-8"),
        (MMSA, {"encoding": "base64"}, "encoding: unknown encoding, expected e.g. utf-8"),
        (MMSA, {"language": "english"}, "language: String should match pattern"),
        (
            MEDIA,
            {"task": "regression"},
            "task: not possible with layout media_only, expected unlabelled",
        ),
        (MEDIA, {"scale": "mosi"}, "scale: only for task regression, but task is unlabelled"),
        (
            CMU,
            {"task": "classification"},
            "task: not possible with layout cmu, expected regression",
        ),
        (CMU, {"label": "joy"}, "label: not published, expected sentiment, happy, sad, anger"),
        (
            MELD,
            {"task": "regression"},
            "task: not possible with layout meld, expected classification",
        ),
        (MELD, {"label": None}, "label: absent, but required for layout meld, expected sentiment"),
        (MELD, {"classes": None}, "classes: absent, but required for task classification"),
        (TABLE, {"table": None}, "table: absent, but required for layout table"),
    ],
)
def test_a_block_whose_parts_do_not_fit_is_explained(block, change, message):
    with pytest.raises(ParamsError) as error:
        parse(block | change)
    assert f"corpora.x.{message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"columns": {"label": "y"}},
            "expected either path (a pattern such as {video_id}/{clip_id}.mp4) or",
        ),
        (
            {"path": "{y}.mp4"},
            "either path (a pattern such as {video_id}/{clip_id}.mp4) or columns",
        ),
        ({"columns": {"path": "file"}}, "columns.label is absent (name the column of labels, or"),
        ({"path": "a.mp4", "columns": {"label": "y"}}, "path: expected columns in braces, e.g."),
        ({"path": "{a.mp4", "columns": {"label": "y"}}, "path: expected columns in braces, e.g."),
        (
            {"splits": {"valid": "test"}},
            "two splits have the same name, expected three different names",
        ),
        ({"splits": {"dev": "x"}}, "splits.dev"),
        ({"columns": {"lable": "y"}}, "table.columns.lable: unknown key"),
    ],
)
def test_a_table_that_cannot_be_found_or_read_is_explained(table, message):
    with pytest.raises(ParamsError) as error:
        parse(TABLE | {"table": TABLE["table"] | table})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["label", "label_visual"])
def test_an_unlabelled_table_names_no_labels(column):
    block = {"layout": "table", "language": "en", "task": "unlabelled"}
    table = {"file": "a.csv", "columns": {"path": "file"}}
    assert not parse(block | {"table": table}).labelled
    with pytest.raises(ParamsError, match=rf"columns\.{column} is set, but task is unlabelled"):
        parse(block | {"table": {"file": "a.csv", "columns": {"path": "file", column: "y"}}})
