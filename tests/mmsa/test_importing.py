"""Import of feature files as corpus folders."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from mitfrnet.corpus.layouts.features import stored_descriptions
from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Clip
from mitfrnet.features.imported import ImportedExtractor
from mitfrnet.features.text import TextExtractor
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.features.text_params import TextParams
from mitfrnet.labels import SCALES, ClassScale
from mitfrnet.mmsa import import_corpus
from mitfrnet.modalities import MODALITIES
from tests.helpers.mmsa_files import SENTENCES, aligned_file, file_of, save

pytestmark = pytest.mark.slow

FILES = ["acoustic.parquet", "text.parquet", "utterances.parquet", "visual.parquet"]


def imported(content, tmp_path, **options):
    settings = {"language": "en", "scale": SCALES["mosi"], "text_encoder": "embedded"} | options
    file = save(content, tmp_path / "file.pkl")
    return import_corpus(file, tmp_path / "raw" / "mine", **settings)


def stored(tmp_path, modality, utterance_id):
    raw = tmp_path / "raw" / "mine"
    extractor = ImportedExtractor(modality, stored_descriptions(raw)[modality])
    return extractor.extract(Clip(utterance_id, raw))


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder("embedded")


def with_vectors(content, encoder):
    """Replace the text vectors by those that the encoder gives for the tokens."""
    for split in content.values():
        text_bert = split["text_bert"]
        vectors = np.zeros((*text_bert[:, 0].shape, 384), np.float32)
        for row, (ids, mask, _) in enumerate(text_bert):
            n = int(mask.sum())
            (vectors[row, :n],) = encoder.encode([torch.tensor(ids[:n]).long()], 1)
        split["text"] = vectors
    return content


def test_a_corpus_is_four_parquet_files_that_others_can_read(tmp_path):
    content = file_of()
    summary = imported(content, tmp_path)
    raw = tmp_path / "raw" / "mine"
    assert sorted(p.name for p in raw.iterdir()) == FILES
    assert summary.utterances == {"train": 5, "valid": 3, "test": 2}
    assert summary.dims == {"text": 384, "acoustic": 5, "visual": 20}
    assert summary.block == {
        "layout": "features",
        "language": "en",
        "scale": "mosi",
        "text_encoder": "embedded",
    }
    ids = pq.read_table(raw / "utterances.parquet")["utterance_id"].to_pylist()
    assert ids == sorted(ids)
    row = pq.read_table(raw / "acoustic.parquet").to_pylist()[0]
    length = content["train"]["audio_lengths"][0]
    assert row["utterance_id"] == "vid0/0"
    assert np.array_equal(row["values"], content["train"]["audio"][0, :length].astype("f4"))
    names = stored_descriptions(raw)["visual"]["feature_names"]
    assert names[:2] == ["vision_000", "vision_001"]


def test_the_same_file_gives_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    imported(file_of(), tmp_path)
    before = {n: (tmp_path / "raw" / "mine" / n).read_bytes() for n in FILES}
    imported(file_of(), tmp_path)  # replaces the first
    assert {n: (tmp_path / "raw" / "mine" / n).read_bytes() for n in FILES} == before
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["mine"]


def test_another_folder_is_never_overwritten(tmp_path):
    raw = tmp_path / "raw" / "mine"
    raw.mkdir(parents=True)
    (raw / "label.csv").write_text("mine")
    with pytest.raises(FeatureError, match="exists and is not an earlier import"):
        imported(file_of(), tmp_path)
    assert (raw / "label.csv").read_text() == "mine"


def test_an_import_with_a_further_file_is_never_overwritten(tmp_path):
    imported(file_of(), tmp_path)
    (tmp_path / "raw" / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FeatureError, match="exists and is not an earlier import"):
        imported(file_of(), tmp_path)


def test_an_import_that_fails_leaves_nothing(tmp_path):
    content = file_of()
    content["test"]["regression_labels"][1] = 3.5
    with pytest.raises(FeatureError, match=r"test row 1 \(vid2/1\): label 3\.5, out of scale"):
        imported(content, tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []


def test_vectors_of_another_encoder_are_computed_again(tmp_path):
    summary = imported(file_of(), tmp_path)
    assert summary.text == "computed from the token ids"
    params = TextParams(encoders={"en": "embedded"}, max_tokens=64, batch_size=1, device="cpu")
    expected = TextExtractor(params, "embedded").extract(Clip("x", None, transcript=SENTENCES[2]))
    features = stored(tmp_path, "text", "vid0/2")
    assert np.abs(features.values - expected.values).max() < 1e-5
    for column, values in expected.columns.items():
        assert np.array_equal(features.columns[column], values), column


def test_vectors_of_another_encoder_with_the_same_width_are_computed_again(tmp_path, encoder):
    content = with_vectors(file_of(), encoder)
    content["valid"]["text"][1, 1, 7] += np.float32(0.01)
    assert imported(content, tmp_path).text == "computed from the token ids"


def test_vectors_of_the_encoder_are_kept_to_the_last_bit(tmp_path, encoder):
    content = with_vectors(file_of(), encoder)
    noise = np.float32(1e-5)  # as on another device
    content["train"]["text"][0, 1] += noise
    summary = imported(content, tmp_path)
    assert summary.text == "from the file"
    features = stored(tmp_path, "text", "vid0/0").values
    assert np.array_equal(features, content["train"]["text"][0, : len(features)])


def test_the_identity_is_that_of_the_encoder(tmp_path):
    imported(file_of(), tmp_path)
    params = TextParams(encoders={"en": "embedded"}, max_tokens=12, batch_size=1, device="cpu")
    identity = stored_descriptions(tmp_path / "raw" / "mine")["text"]["identity"]
    assert identity == TextExtractor(params, "embedded").identity


def test_a_missing_sep_leaves_an_ordinary_word_and_is_counted(tmp_path):
    """`what a lovely film` has 6 tokens with [CLS] and [SEP]; a file of width 5 lacks the last."""
    content = file_of(width=12, sentences=["what a lovely film", "no"])
    for split in content.values():
        split["text_bert"] = split["text_bert"][:, :, :5]
        split["text"] = split["text"][:, :5]
    summary = imported(content, tmp_path)
    cut = "text: [SEP] cut off, so the last token is an ordinary word"
    assert summary.notes[cut] == 6  # rows 0, 2, 4; 0, 2; 0
    assert summary.transcripts_differing == 0
    assert stored(tmp_path, "text", "vid0/0").columns["special"].tolist() == [True] + [False] * 4
    assert stored(tmp_path, "text", "vid0/1").columns["special"].tolist() == [True, False, True]


def test_tokens_of_another_vocabulary_are_refused(tmp_path):
    content = file_of()
    for split in content.values():
        ids = split["text_bert"][:, 0]
        ids[(ids > 0) & (ids != 101) & (ids != 102)] += 7
    with pytest.raises(FeatureError) as error:
        imported(content, tmp_path)
    assert "10 of 10 transcripts do not give the stored tokens with text encoder 'embedded'" in str(
        error.value
    )


def test_tokens_beyond_the_vocabulary_are_refused(tmp_path):
    content = file_of()
    content["valid"]["text_bert"][1, 0, 1] = 30522
    with pytest.raises(FeatureError, match=r"valid row 1: token id 30522, but .* has 30522 "):
        imported(content, tmp_path)


def test_a_few_differing_transcripts_are_counted(tmp_path):
    content = file_of()
    content["train"]["raw_text"][1] = "abcd"  # the stored token is that of `no`
    summary = imported(content, tmp_path)
    assert summary.transcripts_differing == 1
    columns = stored(tmp_path, "text", "vid0/1").columns
    assert columns["char_start"].tolist() == [0, 0, 0]
    assert columns["char_end"].tolist() == [0, 4, 0]


def test_without_transcripts_the_tokens_are_decoded(tmp_path):
    content = file_of()
    for split in content.values():
        del split["raw_text"]
    imported(content, tmp_path)
    rows = pq.read_table(tmp_path / "raw" / "mine" / "utterances.parquet").to_pylist()
    assert rows[0]["transcript"] == "what a lovely film"
    assert rows[0]["transcript_source"] == "tokens"


def test_a_text_of_special_tokens_only_is_missing(tmp_path):
    content = file_of(sentences=["", "no"])
    summary = imported(content, tmp_path)
    assert summary.missing["text"] == {"empty_transcript": 6}


def test_an_aligned_file_stays_aligned(tmp_path):
    summary = imported(aligned_file(), tmp_path)
    assert summary.aligned
    lengths = {len(stored(tmp_path, m, "vid0/2").detected) for m in MODALITIES}
    assert len(lengths) == 1


def test_class_labels_need_classes_and_scores_a_scale(tmp_path):
    classes = ClassScale(classes=("negative", "neutral", "positive"))
    with pytest.raises(FeatureError, match="labels are scores"):
        imported(file_of(), tmp_path, scale=classes)
    content = file_of()
    for split in content.values():
        del split["regression_labels"]
    with pytest.raises(FeatureError, match="no regression_labels, only classes"):
        imported(content, tmp_path)
    summary = imported(content, tmp_path, scale=classes)
    assert summary.block["classes"] == ["negative", "neutral", "positive"]
    content["train"]["classification_labels"][0] = 3
    with pytest.raises(FeatureError, match=r"label 3 \(expected 0 to 2"):
        imported(content, tmp_path, scale=classes)


def test_a_language_without_a_default_encoder_needs_one(tmp_path):
    with pytest.raises(FeatureError, match="no text encoder is known for language 'ms'"):
        imported(file_of(), tmp_path, language="ms", text_encoder=None)


def test_a_wrong_description_in_the_file_is_ignored(tmp_path):
    content = file_of()
    named = {"version": "1", "feature_names": ["a"], "units": ["1"], "identity": {}}
    content["config"] = {"mitfrnet": json.dumps({"features": {"acoustic": named}})}
    imported(content, tmp_path)
    names = stored_descriptions(tmp_path / "raw" / "mine")["acoustic"]["feature_names"]
    assert names == [f"audio_{i:03d}" for i in range(5)]


def test_chinese_text_needs_a_chinese_vocabulary(tmp_path):
    """A BERT of one layer has the characters of two sentences as its vocabulary."""
    sentences = ["我很喜欢这部电影", "不好看"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(sentences)))]
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=1, **size)).save_pretrained(
        folder
    )
    content = file_of(sentences=sentences)
    for split in content.values():
        split["text_bert"][:] = 0
        for row, text in enumerate(split["raw_text"]):
            ids = tokenizer(text)["input_ids"]
            split["text_bert"][row, :2, : len(ids)] = ids, [1] * len(ids)
    summary = imported(content, tmp_path, language="zh", text_encoder=str(folder))
    assert summary.dims["text"] == 8
    assert summary.transcripts_differing == 0
    features = stored(tmp_path, "text", "vid0/1")
    assert features.columns["char_end"].tolist() == [0, 1, 2, 3, 0]
    with pytest.raises(FeatureError, match="do not give the stored tokens"):
        imported(content, tmp_path, language="zh", text_encoder="embedded")
