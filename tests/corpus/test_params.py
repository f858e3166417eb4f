import pytest

from mitfrnet.corpus.layouts import LAYOUTS
from mitfrnet.errors import ParamsError
from mitfrnet.labels import SCALES
from tests.helpers.reading import BLOCKS, parse

MMSA, TABLE, CMU, MELD = (BLOCKS[name] for name in ("mmsa", "table", "cmu", "meld"))
MEDIA = BLOCKS["media_only"]
CLASSES = MMSA | {"scale": None, "task": "classification"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_has_a_task_and_the_scale_of_its_labels(layout):
    corpus = parse(BLOCKS[layout])
    task = {"meld": "classification", "media_only": "unlabelled"}.get(layout, "regression")
    assert corpus.task == task
    assert corpus.labelled == (task != "unlabelled")
    if task == "classification":
        assert corpus.resolved_scale.classes == ("negative", "neutral", "positive")
    else:
        assert corpus.resolved_scale == (SCALES["mosi"] if corpus.labelled else None)


def test_an_unknown_layout_is_answered_with_all_there_are():
    with pytest.raises(ParamsError) as error:
        parse(MMSA | {"layout": "mosei"})
    assert [name for name in str(error.value).split("'") if name in LAYOUTS] == list(LAYOUTS)


def test_splits_of_a_table_keep_their_names_unless_others_are_given():
    assert parse(TABLE).table.splits == {"train": "train", "valid": "valid", "test": "test"}
    block = TABLE | {"table": TABLE["table"] | {"splits": {"valid": "dev"}}}
    assert parse(block).table.splits == {"train": "train", "valid": "dev", "test": "test"}


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        (MMSA, {"scale": "imdb"}, "scale: unknown scale, expected mosi, sims"),
        (MMSA, {"scale": {"low": 1, "high": 5, "family": "mosi"}}, "scale: low must be below 0"),
        (MMSA, {"scale": {"low": 1, "high": 5}}, "scale: expected either family (mosi or sims), "),
        (MMSA, {"scale": None}, "scale: absent, but required for task regression (expected mosi"),
        (MMSA, {"classes": ["a", "b"]}, "classes: only for task classification, but task is reg"),
        (MMSA, {"task": "classification"}, "scale: only for task regression, but task is classi"),
        (MMSA, {"task": "ranking"}, "task: Input should be 'regression', 'classification' or"),
        (MMSA, {"langauge": "en"}, "langauge: unknown key (expected: language)"),
        (CLASSES, {"classes": ["a", "a"]}, "classes: a class is listed twice (found: ['a', 'a"),
        (CLASSES, {}, "classes: absent, but required for task classification"),
        (MMSA, {"table": TABLE["table"]}, "table: only for layout table, but layout is mmsa"),
        (MMSA, {"task": "unlabelled", "scale": None}, "task: layout mmsa has labels, expected reg"),
        (MMSA, {"label": "sentiment"}, "label: only for layouts cmu and meld, but layout is mmsa"),
        (MMSA, {"encoding": "latin-x"}, "encoding: unknown encoding, expected e.g. utf-8"),
        (MMSA, {"encoding": "base64"}, "encoding: unknown encoding, expected e.g. utf-8"),
        (MMSA, {"language": "english"}, "language: String should match pattern"),
        (MMSA, {"media": "clips/mine"}, "media: not the URL of a folder, expected e.g. s3://bucke"),
        (MMSA, {"media": "s3://"}, "media: not the URL of a folder"),
        (MMSA, {"media": "simplecache::s3://clips/mine"}, "media: not the URL of a folder"),
        (MMSA, {"media": "file:///clips"}, "media: on this machine, expected object storage"),
        (BLOCKS["features"], {"media": "s3://clips/mine"}, "media: layout features has no clips"),
        (MEDIA, {"task": "regression"}, "task: not possible with layout media_only, expected unl"),
        (MEDIA, {"scale": "mosi"}, "scale: only for task regression, but task is unlabelled"),
        (CMU, {"task": "classification"}, "task: not possible with layout cmu, expected regress"),
        (CMU, {"label": "joy"}, "label: not published, expected sentiment, happy, sad, anger"),
        (MELD, {"task": "regression"}, "task: not possible with layout meld, expected classifica"),
        (MELD, {"label": None}, "label: absent, but required for layout meld, expected sentiment"),
        (TABLE, {"table": None}, "table: absent, but required for layout table"),
    ],
)
def test_a_block_whose_parts_do_not_fit_is_explained(block, change, message):
    with pytest.raises(ParamsError) as error:
        parse(block | change)
    assert f"corpora.x.{message}" in str(error.value)
    assert "\n" not in str(error.value)


EITHER_PATH = "expected either path (a pattern such as {video_id}/{clip_id}.mp4) or columns.path"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"columns": {"label": "y"}}, EITHER_PATH),
        ({"path": "{y}.mp4"}, EITHER_PATH),
        ({"columns": {"path": "file"}}, "columns.label is absent (name the column of labels, or"),
        ({"path": "a.mp4", "columns": {"label": "y"}}, "path: expected columns in braces, e.g."),
        ({"path": "{a.mp4", "columns": {"label": "y"}}, "path: expected columns in braces, e.g."),
        ({"splits": {"valid": "test"}}, "two splits have the same name, expected three different"),
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
    block = {"layout": "table", "task": "unlabelled"}
    table = {"file": "a.csv", "columns": {"path": "file"}}
    assert not parse(block | {"table": table}).labelled
    with pytest.raises(ParamsError, match=rf"columns\.{column} is set, but task is unlabelled"):
        parse(block | {"table": {"file": "a.csv", "columns": {"path": "file", column: "y"}}})
