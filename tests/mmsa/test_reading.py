"""Reading the arrays of a feature file."""

import numpy as np
import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.mmsa import read
from tests.helpers.mmsa_files import aligned_file, file_of, save

pytestmark = pytest.mark.slow  # transformers


def reread(content, tmp_path):
    return read(save(content, tmp_path / "file.pkl"))


@pytest.fixture
def content():
    return file_of()


def test_padding_is_cut_off_and_everything_else_kept(content, tmp_path):
    file = reread(content, tmp_path)
    assert {name: len(split) for name, split in file.splits.items()} == {
        "train": 5,
        "valid": 3,
        "test": 2,
    }
    assert file.dims == {"text": 8, "acoustic": 5, "visual": 20}
    assert not file.aligned
    stored = content["train"]
    for row, utterance in enumerate(file.splits["train"]):
        assert utterance.utterance_id == f"vid0/{row}"
        assert utterance.transcript == stored["raw_text"][row]
        assert utterance.label == stored["regression_labels"][row]
        tokens = int(stored["text_bert"][row, 1].sum())
        assert utterance.token_ids.tolist() == stored["text_bert"][row, 0, :tokens].tolist()
        assert np.array_equal(utterance.text, stored["text"][row, :tokens])
        for steps, key in ((utterance.acoustic, "audio"), (utterance.visual, "vision")):
            length = stored[f"{key}_lengths"][row]
            assert np.array_equal(steps.values, stored[key][row, :length].astype(np.float32))
            assert steps.detected.all()
            assert steps.reason is None


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_steps_that_are_not_finite_are_undetected(content, tmp_path, value):
    content["train"]["audio"][0, 1, 2] = value
    utterance = reread(content, tmp_path).splits["train"][0]
    assert utterance.acoustic.detected.tolist() == [
        i != 1 for i in range(content["train"]["audio_lengths"][0])
    ]
    assert np.isnan(utterance.acoustic.values[1]).all()
    assert np.isfinite(utterance.acoustic.values[utterance.acoustic.detected]).all()
    assert "acoustic: steps not finite, taken as undetected" in utterance.notes


def test_a_modality_that_is_never_finite_is_missing(content, tmp_path):
    content["train"]["audio"][0] = -np.inf
    content["train"]["audio_lengths"][0] = content["train"]["audio"].shape[1]
    steps = reread(content, tmp_path).splits["train"][0].acoustic
    assert (len(steps.detected), steps.reason) == (0, "nothing_measured")


def test_both_layouts_of_text_bert_are_the_same(content, tmp_path):
    expected = [u.token_ids.tolist() for u in reread(content, tmp_path).splits["train"]]
    for split in content.values():
        split["text_bert"] = split["text_bert"].transpose(0, 2, 1)
    assert [u.token_ids.tolist() for u in reread(content, tmp_path).splits["train"]] == expected


@pytest.mark.parametrize("by_token", [False, True])
def test_the_layout_of_three_tokens_is_told_by_content(tmp_path, by_token):
    """[CLS] no [SEP], in a file that pads to 3 tokens."""
    content = file_of(width=3, sentences=["no"])
    for split in content.values():
        if by_token:
            split["text_bert"] = split["text_bert"].transpose(0, 2, 1)
    assert reread(content, tmp_path).splits["train"][0].token_ids.tolist() == [101, 2053, 102]


def test_padding_in_front_is_found_per_utterance(content, tmp_path):
    expected = [u.acoustic.values.tolist() for u in reread(content, tmp_path).splits["train"]]
    audio, lengths = content["train"]["audio"], content["train"]["audio_lengths"]
    moved = 0
    for row in (0, 2):
        audio[row] = np.roll(audio[row], audio.shape[1] - lengths[row], axis=0)
        moved += lengths[row] < audio.shape[1]
    utterances = list(reread(content, tmp_path).splits["train"])
    assert [u.acoustic.values.tolist() for u in utterances] == expected
    assert sum("acoustic: padding in front, cut off" in u.notes for u in utterances) == moved > 0


def test_content_that_contradicts_the_length_is_refused(content, tmp_path):
    content["valid"]["vision"][1] = 1.0
    content["valid"]["vision_lengths"][1] = 4
    file = reread(content, tmp_path)
    with pytest.raises(FeatureError) as error:
        file.splits["valid"][1]
    assert "file.pkl: valid row 1 ('vid1$_$1'): vision_lengths is 4, but steps 0 to 6" in str(
        error.value
    )


def test_a_length_beyond_the_array_is_refused(content, tmp_path):
    content["test"]["audio_lengths"][0] = 10
    with pytest.raises(FeatureError, match=r"audio_lengths is 10 \(expected at most 9\)"):
        reread(content, tmp_path).splits["test"][0]


def test_zero_steps_inside_are_undetected_and_at_the_ends_padding(content, tmp_path):
    for split in content.values():
        del split["audio_lengths"]
    audio = content["train"]["audio"]
    audio[0] = 0
    audio[0, 2], audio[0, 4] = 1, 2
    steps = reread(content, tmp_path).splits["train"][0].acoustic
    assert steps.detected.tolist() == [True, False, True]
    assert steps.values[::2, 0].tolist() == [1, 2]
    assert np.isnan(steps.values[1]).all()


def test_a_text_without_padding_has_its_full_length(tmp_path):
    content = file_of(width=6, sentences=["what a lovely film"])
    assert content["train"]["text_bert"][0, 1].all()
    assert len(reread(content, tmp_path).splits["train"][0].token_ids) == 6


def test_zero_lengths_are_missing_modalities(content, tmp_path):
    content["train"]["audio"][0] = 0
    content["train"]["audio_lengths"][0] = 0
    content["train"]["vision"][1] = 0
    content["train"]["vision_lengths"][1] = 1  # as MMSA writes a missing modality
    split = reread(content, tmp_path).splits["train"]
    assert split[0].acoustic.reason == split[1].visual.reason == "nothing_measured"
    assert len(split[0].acoustic.values) == len(split[1].visual.values) == 0


def test_a_length_is_a_number_of_steps_and_nothing_else(content, tmp_path):
    content["train"]["audio_lengths"][1] = 2.5
    with pytest.raises(FeatureError, match=r"train: audio_lengths in row 1 is 2\.5 \(expected a n"):
        reread(content, tmp_path)


def test_aligned_steps_stay_with_their_tokens(tmp_path):
    content = aligned_file()
    content["train"]["audio"][0, 0] = 0  # [CLS] has no measurement
    file = reread(content, tmp_path)
    assert file.aligned
    for utterance in file.splits["train"]:
        tokens = len(utterance.token_ids)
        assert len(utterance.acoustic.detected) == len(utterance.visual.detected) == tokens
    assert file.splits["train"][0].acoustic.detected.tolist() == [False] + [True] * 5


def test_aligned_steps_of_text_padded_in_front_keep_their_places(tmp_path):
    """Six tokens are at the end, and only the second has sound."""
    content = aligned_file()
    part = content["train"]
    tokens = int(part["text_bert"][0, 1].sum())
    for key, axis in (("text_bert", 2), ("text", 1), ("audio", 1), ("vision", 1)):
        width = part[key].shape[axis]
        part[key][0] = np.roll(part[key][0], width - tokens, axis=axis - 1)
    part["audio"][0, : width - tokens + 1] = part["audio"][0, width - tokens + 2 :] = 0
    part["audio"][0, width - tokens + 1] = 1
    utterance = reread(content, tmp_path).splits["train"][0]
    assert utterance.acoustic.detected.tolist() == [i == 1 for i in range(tokens)]


def test_aligned_steps_beyond_the_text_are_kept_and_noted(tmp_path):
    content = aligned_file()
    content["train"]["audio"][0] = 1
    utterance = reread(content, tmp_path).splits["train"][0]
    assert len(utterance.acoustic.detected) == 12
    assert "acoustic: more steps than tokens, kept all" in utterance.notes


def test_unpadded_arrays_are_read(content, tmp_path):
    audio = content["train"]["audio"]
    lengths = content["train"].pop("audio_lengths")
    ragged = np.empty(5, object)
    ragged[:] = [audio[i, :n] for i, n in enumerate(lengths)]
    content["train"]["audio"] = ragged
    utterances = reread(content, tmp_path).splits["train"]
    assert [len(u.acoustic.values) for u in utterances] == lengths


def test_ids_lists_and_arrays_with_and_without_separator(content, tmp_path):
    content["train"]["id"] = np.array(["a$_$1", "a$_$02", "b_$$_$1", "c[3]", "d"])
    split = reread(content, tmp_path).splits["train"]
    assert [u.utterance_id for u in split] == ["a/1", "a/02", "b_$/1", "c[3]/c[3]", "d/d"]


def test_labels_of_modalities_and_classes(content, tmp_path):
    for split in content.values():
        split["regression_labels_T"] = np.full(len(split["id"]), 0.5)
        split["regression_labels_A"] = np.full(len(split["id"]), np.nan)
    file = reread(content, tmp_path)
    assert file.splits["train"][0].modality_labels == {"text": 0.5}
    for split in content.values():
        del split["regression_labels"]
        split["classification_labels"] = np.array([2, *[0] * (len(split["id"]) - 1)])
    file = reread(content, tmp_path)
    assert file.task == "classification"
    assert file.splits["train"][0].label == 2


def test_a_modality_that_the_file_lacks_is_missing_in_each_utterance(content, tmp_path):
    for split in content.values():
        del split["vision"], split["vision_lengths"]
    file = reread(content, tmp_path)
    assert file.splits["train"][0].visual.reason == "not_in_file"
    assert file.dims["visual"] == 1


def test_text_vectors_may_be_absent(content, tmp_path):
    for split in content.values():
        del split["text"]
    file = reread(content, tmp_path)
    assert file.dims["text"] is None
    assert file.splits["train"][0].text is None


def without(key):
    def change(content):
        del content["train"][key]

    return change


def setting(key, value):
    def change(content):
        content["train"][key] = value(content["train"][key]) if callable(value) else value

    return change


def token(row, position, part, value):
    def change(content):
        content["train"]["text_bert"][row, part, position] = value

    return change


WRONG = {
    "no split": (lambda c: c.pop("valid"), r"no splits \(found: train, test; expected"),
    "no ids": (without("id"), "train: no id "),
    "no tokens": (without("text_bert"), "train: no text_bert"),
    "no labels": (
        lambda c: [s.pop(k) for s in c.values() for k in list(s) if k.endswith("labels")],
        "train: no classification_labels",
    ),
    "labels of two kinds": (without("regression_labels"), "labels differ between splits"),
    "a duplicate id": (
        setting("id", ["a$_$0"] * 5),
        r"train row 1: id 'a\$_\$0' is also in train row 0",
    ),
    "an id in two splits": (
        lambda c: c["test"]["id"].__setitem__(1, "vid0$_$3"),
        r"test row 1: id 'vid0\$_\$3' is also in train row 3",
    ),
    "an id that leads elsewhere": (setting("id", ["../a$_$0"] + ["b"] * 4), "row 0: id is"),
    "an id that is a number": (setting("id", [1, 2, 3, 4, 5]), "id in row 0 is a int"),
    "another number of texts": (setting("raw_text", ["a"]), "raw_text is 1 long"),
    "a lone surrogate": (
        setting("raw_text", ["\ud800"] * 5),
        "raw_text in row 0 is invalid",
    ),
    "audio without steps": (setting("audio", np.ones((5, 3))), r"audio is float64 of shape \(5, 3"),
    "audio of strings": (setting("audio", np.full((5, 9, 5), "x")), "audio is <U1"),
    "audio of another size": (
        setting("audio", lambda a: a[..., :4]),
        "audio differ between splits",
    ),
    "ragged audio of two sizes": (
        setting("audio", [np.ones((2, 5))] * 4 + [np.ones((2, 4))]),
        r"audio in row 4 is float64 of shape \(2, 4\) \(expected numbers, \(steps, 5\)\)",
    ),
    "tokens without parts": (setting("text_bert", np.ones((5, 12))), r"text_bert is of shape"),
    "vectors beside other tokens": (setting("text", np.ones((5, 7, 8))), "text is 7 tokens wide"),
    "a label that is no number": (
        setting("regression_labels", [0, np.nan, 0, 0, 0]),
        "row 1 is nan",
    ),
    "a huge label": (setting("regression_labels", [10**400] * 5), "a number too large"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keys_are_refused_in_one_line(content, tmp_path, name):
    change, said = WRONG[name]
    change(content)
    with pytest.raises(FeatureError, match=said) as error:
        reread(content, tmp_path)
    assert "file.pkl: " in str(error.value)
    assert "\n" not in str(error.value)


WRONG_ROWS = {
    "half a token": (token(0, 1, 0, 7.5), "text_bert holds 101, 7.5"),
    "a negative token": (token(0, 1, 0, -1), "text_bert holds 101, -1"),
    "an infinite token": (token(0, 1, 0, np.inf), "text_bert holds 101, inf"),
    "a mask with a hole": (token(0, 1, 1, 0), "attention mask in text_bert is 1, 0, 1"),
    "a mask of twos": (token(0, 1, 1, 2), "attention mask in text_bert is 1, 2, 1"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_an_error_of_tokens_names_split_row_and_id(content, tmp_path, name):
    change, said = WRONG_ROWS[name]
    change(content)
    file = reread(content, tmp_path)
    with pytest.raises(FeatureError) as error:
        file.splits["train"][0]
    assert "file.pkl: train row 0 ('vid0$_$0'): " in str(error.value)
    assert said in str(error.value)
