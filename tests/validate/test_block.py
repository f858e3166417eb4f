import pytest
import yaml

from mitfrnet.corpus.layouts import LAYOUTS
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError, ParamsError
from mitfrnet.validate.block import guess_block, load_block

GUESSES = [
    (["label.csv", "other.csv", "Raw/v/1.mp4"], "mmsa"),
    (["utterances.parquet", "text.parquet"], "features"),
    (["train_sent_emo.csv", "dev_sent_emo.csv"], "meld"),
    (["train/train_sent_emo.csv", "notes.csv"], "meld"),
    (["labels/CMU_MOSI_Opinion_Labels.csd"], "cmu"),
    (["clips.tsv", "v/1.mp4"], "table"),
    (["clips.csv", "more.csv"], "media_only"),  # it could be either
    (["a/1.mp4"], "media_only"),
    ([], "media_only"),
]


def test_every_layout_can_be_guessed():
    assert {layout for _, layout in GUESSES} == LAYOUTS.keys()


@pytest.mark.parametrize(("files", "layout"), GUESSES)
def test_the_layout_is_guessed_from_the_files_and_the_block_is_one_that_is_read(
    tmp_path, files, layout
):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    block = yaml.safe_load(guess_block(tmp_path))
    assert CorpusParams.model_validate(block).layout == layout


def test_columns_that_are_called_like_ours_are_named(tmp_path):
    (tmp_path / 'my "clips".csv').write_text("path,text,label,split,mood\na.mp4,x,1,train,y\n")
    table = yaml.safe_load(guess_block(tmp_path))["table"]
    assert table["file"] == 'my "clips".csv'
    assert "path" not in table
    assert set(table["columns"]) == {"video_id", "clip_id", "label", "path", "text", "split"}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = {"layout": "media_only", "language": "en"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"corpora": {"mine": block}}))
    folder = tmp_path / "raw" / "mine"
    folder.mkdir(parents=True)
    return folder


def test_the_block_is_that_of_the_folder_or_as_named(corpus):
    assert load_block(corpus).layout == "media_only"
    corpus.rename(corpus.with_name("Other Name"))
    assert load_block(corpus.with_name("Other Name"), "mine").layout == "media_only"
    with pytest.raises(ParamsError, match=r"'Other Name' \(expected a name of a-z"):
        load_block(corpus.with_name("Other Name"))


def test_without_a_block_one_to_paste_is_shown(corpus):
    corpus.rename(corpus.with_name("new"))
    (corpus.with_name("new") / "label.csv").write_text("")
    with pytest.raises(ParamsError) as error:
        load_block(corpus.with_name("new"))
    (line,) = str(error.value).splitlines()
    assert line.startswith("params.yaml: corpora.new: no such block (found: mine; paste this")
    assert line.endswith("new: {layout: mmsa, language: en, scale: mosi})")


@pytest.mark.parametrize("section", ["[]", "{}", "3", "", "[new]"])
def test_an_empty_section_has_no_block(corpus, section):
    (corpus.parents[1] / "params.yaml").write_text(f"corpora: {section}\n")
    with pytest.raises(ParamsError, match=r"no such block \(found: none; "):
        load_block(corpus, "new")


def test_a_wrong_block_and_an_absent_folder_are_named(corpus):
    (corpus.parents[1] / "params.yaml").write_text("corpora: {mine: {layout: mine}}\n")
    with pytest.raises(ParamsError, match=r"params.yaml: corpora.mine.layout: "):
        load_block(corpus)
    with pytest.raises(CorpusError, match="none: no such folder"):
        load_block(corpus / "none")
