import numpy as np
import pytest
import torch

from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.features import text_encoder
from mitfrnet.features.extractor import Clip
from mitfrnet.features.text import TextExtractor
from mitfrnet.features.text_encoder import TextEncoder, encoder_folder, load_tokenizer
from mitfrnet.features.text_params import TextParams, encoder_for

pytestmark = pytest.mark.slow

PARAMS = TextParams(encoders={"en": "embedded"}, max_tokens=64, batch_size=1, device="cpu")
TRANSCRIPTS = ["what a lovely film", "no", "the food was cold, the waiter colder", "fine"]


def clips(transcripts):
    return [Clip(f"v/{i}", None, transcript=text) for i, text in enumerate(transcripts)]


@pytest.fixture(scope="module")
def extractor():
    return TextExtractor(PARAMS, "embedded")


def test_tokens_have_ids_special_flags_and_character_offsets(extractor):
    """All words are in the vocabulary; `lovely` is at characters 7 to 13."""
    features = extractor.extract(clips(["what a lovely film"])[0])
    assert features.values.shape == (6, 384)
    assert features.values.dtype == np.float32
    assert len(extractor.feature_names) == len(extractor.units) == 384
    assert features.columns["special"].tolist() == [True, False, False, False, False, True]
    starts, ends = features.columns["char_start"], features.columns["char_end"]
    words = ["what a lovely film"[a:b] for a, b in zip(starts, ends, strict=True)]
    assert words == ["", "what", "a", "lovely", "film", ""]
    tokenizer = load_tokenizer("embedded")
    expected = tokenizer("what a lovely film")["input_ids"]
    assert features.columns["input_ids"].tolist() == expected
    assert features.detected.all()
    assert np.isnan(features.start_s).all()


def test_vectors_equal_those_of_transformers(extractor):
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder("embedded")
    tokens = AutoTokenizer.from_pretrained(folder)("no", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0]
    values = extractor.extract(clips(["no"])[0]).values
    assert np.allclose(values, expected.numpy(), atol=1e-5)


def test_earlier_transcripts_change_no_byte(extractor):
    forward = [f.values.tobytes() for f in extractor.extract_batch(clips(TRANSCRIPTS))]
    backward = [f.values.tobytes() for f in extractor.extract_batch(clips(TRANSCRIPTS[::-1]))]
    assert forward == backward[::-1]


def test_batches_agree_with_one_at_a_time_to_1e_5(extractor):
    batched = TextExtractor(PARAMS.model_copy(update={"batch_size": 4}), "embedded")
    pairs = zip(
        extractor.extract_batch(clips(TRANSCRIPTS)),
        batched.extract_batch(clips(TRANSCRIPTS)),
        strict=True,
    )
    for alone, together in pairs:
        assert np.abs(alone.values - together.values).max() < 1e-5


def test_a_long_transcript_is_cut_and_keeps_its_special_tokens():
    extractor = TextExtractor(PARAMS.model_copy(update={"max_tokens": 8}), "embedded")
    features = extractor.extract(clips(["word " * 5000])[0])
    assert len(features.values) == 8
    assert features.columns["special"].tolist() == [True] + [False] * 6 + [True]


def test_other_settings_have_another_identity(extractor):
    other = TextExtractor(PARAMS.model_copy(update={"max_tokens": 8}), "embedded")
    assert extractor.identity != other.identity
    assert extractor.identity == TextExtractor(PARAMS, "embedded").identity


def test_an_unknown_encoder_is_one_line_with_remedies(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FeatureError) as error:
        TextExtractor(PARAMS, "nobody/no-such-model")
    message = str(error.value)
    assert "'nobody/no-such-model'" in message
    assert "use 'embedded'" in message
    assert "\n" not in message


def test_changed_bytes_of_the_embedded_model_are_refused(monkeypatch):
    monkeypatch.setitem(text_encoder._EMBEDDED_SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(FeatureError, match=r"tokenizer\.json: SHA-256 differs"):
        encoder_folder("embedded")


def test_a_local_folder_is_an_encoder(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder("embedded")
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    (ours,) = TextExtractor(PARAMS, str(tmp_path)).extract_batch(clips(["fine"]))
    (embedded,) = TextExtractor(PARAMS, "embedded").extract_batch(clips(["fine"]))
    assert np.array_equal(ours.values, embedded.values)


def test_encode_gives_each_sequence_its_own_length():
    encoder = TextEncoder("embedded")
    sequences = [torch.tensor([101, 2053, 102]), torch.tensor([101, 102])]
    assert [len(v) for v in encoder.encode(sequences, 2)] == [3, 2]


def test_the_language_chooses_the_encoder_unless_the_corpus_names_one():
    params = PARAMS.model_copy(update={"encoders": {"en": "embedded", "zh": "chinese"}})
    assert encoder_for(params, "zh", None) == "chinese"
    assert encoder_for(params, "zh", "other") == encoder_for(params, "fr", "other") == "other"
    with pytest.raises(ParamsError, match=r"encoders: none for language 'fr' \(found: en, zh;"):
        encoder_for(params, "fr", None)
