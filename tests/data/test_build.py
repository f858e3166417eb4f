"""Tensors of small made-up corpora, in which every step is known."""

import json
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from mitfrnet.corpus.manifest import SCHEMA, input_digest, make_manifest, write_manifest
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors, summarise_features
from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.data.scaling import no_scaling
from mitfrnet.data.tensors import read_tensors, write_tensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.acoustic import RECIPES, extract_acoustic
from mitfrnet.features.extractor import Features
from mitfrnet.features.shards import FeatureRow, extractor_digest, feature_schema, to_table
from mitfrnet.missing import MaskParams, mask_corpus
from mitfrnet.missing.patterns import Pattern
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from mitfrnet.trained.model import TrainedModel
from pipeline.tensors import main

NONE = TensorParams(align="none", segments=4)
WORDS = TensorParams(align="words", segments=4)
POOL = TensorParams(align="pool", segments=4)
UNKNOWN_ID = 9


class FakeExtractor:
    version = "1"
    feature_names = ("a", "b")
    units = ("1", "1")

    def __init__(self, modality):
        self.identity = {"unknown_id": UNKNOWN_ID} if modality == "text" else {}
        self.columns = (
            {n: np.int32 for n in ("input_ids", "char_start", "char_end")} | {"special": np.bool_}
            if modality == "text"
            else {}
        )


def manifest_row(i, split):
    empty = dict.fromkeys(SCHEMA.names)
    return empty | {
        "utterance_id": f"v/{i}", "video_id": "v", "clip_id": str(i), "split": split,
        "digest": f"bytes {i}", "transcript": f"words {i}", "label": i / 2,
        "duration_s": 2.0 * i or None,
    }  # fmt: skip


ROWS = [manifest_row(i, split) for i, split in enumerate(["train", "valid", "test", "train"])]
SETTINGS = {"language": "en", "scale": {}, "text_encoder": None, "limits": {}}
MANIFEST = make_manifest(ROWS, SETTINGS)


def feature_row(row, modality):
    """Clip i has i + 1 steps of value i; its last step shows no face, and clip 3 never does."""
    i = int(row["clip_id"])
    steps = i + 1
    detected = np.ones(steps, dtype=bool)
    reason = None
    if modality == "visual":
        detected[-1] = False
        if i == 3:
            detected[:], reason = False, "no_face"
    values = np.where(detected[:, None], np.float32(i), np.float32(np.nan)).repeat(2, axis=1)
    columns = {n: np.full(steps, i, kind) for n, kind in FakeExtractor(modality).columns.items()}
    if modality == "text":
        columns["char_start"] = np.arange(steps, dtype=np.int32)
        columns["char_end"] = columns["char_start"] + 2
    features = Features(values, detected, np.arange(steps, dtype=np.float32), columns)
    digest = extractor_digest(FakeExtractor(modality))
    return FeatureRow(row["utterance_id"], features, reason, input_digest(row, modality), digest)


def features(rows=ROWS):
    return {
        m: to_table([feature_row(r, m) for r in rows], feature_schema(FakeExtractor(m)))
        for m in MODALITIES
    }


def test_splits_hold_their_own_utterances_with_all_steps():
    splits = build_tensors(MANIFEST, features(), NONE)
    assert {name: split.ids for name, split in splits.items()} == {
        "train": ["v/0", "v/3"], "valid": ["v/1"], "test": ["v/2"]
    }  # fmt: skip
    train = splits["train"]
    assert train.label.tolist() == [0, 1.5]
    acoustic = train.modalities["acoustic"]
    assert acoustic.offsets.tolist() == [0, 1, 5]
    assert acoustic.values[:, 0].tolist() == [0, 3, 3, 3, 3]
    assert train.token_ids.tolist() == [0, 3, 3, 3, 3]


def test_undetected_steps_are_zero_and_a_clip_without_a_face_has_no_steps():
    splits = build_tensors(MANIFEST, features(), NONE)
    visual = splits["test"].modalities["visual"]
    assert visual.values[:, 0].tolist() == [2, 2, 0]
    assert visual.detected.tolist() == [True, True, False]
    assert splits["train"].modalities["visual"].offsets.tolist() == [0, 1, 1]


def test_times_are_the_centres_of_steps():
    """Steps of 1 s, even a single one, are half a second after their start."""
    acoustic = build_tensors(MANIFEST, features(), NONE)["train"].modalities["acoustic"]
    assert acoustic.time_s.tolist() == [0.5, 0.5, 1.5, 2.5, 3.5]
    assert acoustic.time_s.dtype == np.float32


LAST_WORD = {"char_start": 6, "char_end": 7, "start_s": 1.0, "end_s": 3.0}  # without a token


@pytest.mark.parametrize(
    ("changes", "duration"),
    [
        ({}, 6),
        ({"start_s": 1.0, "end_s": 5.0}, 4),
        ({"start_s": 4.0, "end_s": 9.0}, 2),  # the file ends at 6
        ({"duration_s": None}, 1),
        ({"duration_s": 0.0}, 1),
        ({"duration_s": None, "words": [LAST_WORD]}, 3),
    ],
)
def test_tokens_are_spread_over_the_clip_by_their_place_in_the_transcript(changes, duration):
    """Tokens of characters 0-2, 1-3, 2-4, 3-5 of the 7 of `words 3`: at 1, 2, 3, 4 sevenths."""
    row = ROWS[3] | changes
    splits = build_tensors(make_manifest([row], SETTINGS), features([row]), NONE)
    times = splits["train"].modalities["text"].time_s
    np.testing.assert_allclose(times, np.array([1, 2, 3, 4]) / 7 * duration, rtol=1e-6)


def test_a_clip_without_features_or_of_other_bytes_is_refused():
    with pytest.raises(FeatureError, match="no row for v/3"):
        build_tensors(MANIFEST, features(ROWS[:3]), NONE)
    replaced = [*ROWS[:3], ROWS[3] | {"digest": "other bytes"}]
    with pytest.raises(FeatureError, match="v/3 was extracted from other input"):
        build_tensors(MANIFEST, features(replaced), NONE)


def summary_of(manifest, tables, params):
    return summarise_features(manifest, tables, build_tensors(manifest, tables, params), params)


def test_the_summary_counts_reasons_and_shares_detected():
    """Steps with a face: 0 of 1, 1 of 2, 2 of 3, 0 of 4; the mean share is .2917."""
    summary = summary_of(MANIFEST, features(), NONE)
    assert summary["visual"]["missing"] == {"no_face": 1}
    assert summary["visual"]["detected_share"]["mean"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 0) / 4)
    assert summary["text"] == {
        "clips": 4, "missing": {}, "steps": 10,
        "detected_share": {"mean": 1.0, "p05": 1.0, "p50": 1.0, "p95": 1.0},
        "truncated": 4, "unknown_tokens": 0.0,
    }  # fmt: skip
    assert "aligned_by" not in summary
    assert "silent_share" not in summary["acoustic"]  # features without MFCC


def test_the_summary_holds_the_share_of_silence():
    """One clip is silent in its second half, the other all the time."""

    class Sound(FakeExtractor):
        feature_names = ("zero_crossing_rate", *(f"mfcc_{i:02d}" for i in range(20)), "chroma")
        units = ("1",) * 22

    tone = (0.5 * np.sin(np.arange(128000) / 5)).astype(np.float32)
    tables = features(ROWS[:2])
    rows = []
    for row, sound in zip(ROWS, [tone * (np.arange(128000) < 64000), 0 * tone], strict=False):
        values = extract_acoustic(sound, RECIPES["paper"])[:, :22]
        steps = len(values)
        sound_features = Features(values, np.ones(steps, bool), np.arange(steps, dtype=np.float32))
        digest = extractor_digest(Sound("acoustic"))
        rows.append(
            FeatureRow(
                row["utterance_id"], sound_features, None, input_digest(row, "acoustic"), digest
            )
        )
    tables["acoustic"] = to_table(rows, feature_schema(Sound("acoustic")))
    summary = summary_of(make_manifest(ROWS[:2], SETTINGS), tables, NONE)
    silent = summary["acoustic"]["silent_share"]
    assert silent["mean"] == pytest.approx((0.5 + 1) / 2, abs=0.02)
    assert silent["p95"] == pytest.approx(1, abs=0.03)


def test_an_unlabelled_corpus_has_labels_of_nan_and_splits_without_utterances():
    rows = [ROWS[2] | {"label": None, "duration_s": None}]
    splits = build_tensors(make_manifest(rows, SETTINGS), features(rows), NONE)
    assert np.isnan(splits["test"].label).all()
    for split in ("train", "valid"):
        assert splits[split].ids == []
        assert splits[split].dims == dict.fromkeys(MODALITIES, 2)
        assert splits[split].label.dtype == np.float32
        assert splits[split].modalities["visual"].offsets.tolist() == [0]


def test_steps_with_unknown_times_share_the_utterance():
    """Clip 3 has four steps in 6 s."""
    tables = features()
    rows = [feature_row(row, "acoustic") for row in ROWS]
    rows[3].features.start_s[:] = np.nan
    tables["acoustic"] = to_table(rows, feature_schema(FakeExtractor("acoustic")))
    splits = build_tensors(MANIFEST, tables, NONE)
    times = splits["train"].modalities["acoustic"].time_s
    assert times[1:].tolist() == [0.75, 2.25, 3.75, 5.25]


def test_steps_may_be_longer_in_one_clip_than_in_another():
    """Clip 3 has four steps of .25 s; clip 0 has one step of unknown length."""
    tables = features()
    rows = [feature_row(row, "acoustic") for row in ROWS]
    rows[3].features.start_s[:] /= 4
    tables["acoustic"] = to_table(rows, feature_schema(FakeExtractor("acoustic")))
    everything = make_manifest([row | {"split": "train"} for row in ROWS], SETTINGS)
    times = build_tensors(everything, tables, NONE)["train"].modalities["acoustic"].time_s
    assert times.tolist() == [0.5, 0.5, 1.5, 0.5, 1.5, 2.5, 0.125, 0.375, 0.625, 0.875]


# Clips of 2 s say `Hi there, you`: [CLS] Hi the ##re , you [SEP], where `the` is unknown. Sound has
# eight steps, 0 to 7; the face has four, 0 to 3, the last undetected.
TRANSCRIPT = "Hi there, you"
CHARS = [[0, 0], [0, 2], [3, 6], [6, 8], [8, 9], [10, 13], [0, 0]]
TOKEN_IDS = [1, 5, UNKNOWN_ID, 6, 7, 8, 2]
TIMES = [(0, 2, 0.0, 0.5), (3, 8, 0.5, 1.2), (10, 13, 1.5, 2.5)]  # the last beyond the clip
WORD_KEYS = ("char_start", "char_end", "start_s", "end_s")


def spoken(i, *, times=None, transcript=TRANSCRIPT, split="train"):
    words = None if times is None else [dict(zip(WORD_KEYS, t, strict=True)) for t in times]
    return manifest_row(i, split) | {
        "transcript": transcript, "words": words, "duration_s": 2.0, "label": None,
    }  # fmt: skip


def spoken_features(row, modality, face):
    if modality == "text":
        detected = np.ones(len(CHARS) if row["transcript"] else 2, dtype=bool)
        start_s = np.full(len(detected), np.nan, dtype=np.float32)
        chars = np.array(CHARS, dtype=np.int32)[: len(detected)]
        columns = {
            "input_ids": np.array(TOKEN_IDS, dtype=np.int32)[: len(detected)],
            "special": np.array([c.tolist() == [0, 0] for c in chars]) | (len(detected) == 2),
            "char_start": chars[:, 0],
            "char_end": chars[:, 1],
        }
        reason = None if row["transcript"] else "empty_transcript"
    else:
        detected = np.ones(8, dtype=bool) if modality == "acoustic" else np.array(face)
        start_s = np.arange(len(detected), dtype=np.float32) * np.float32(2 / len(detected))
        columns, reason = {}, None if detected.any() else "no_face"
    steps = np.arange(len(detected), dtype=np.float32)
    values = np.where(detected[:, None], np.stack([steps, -steps], axis=1), np.float32(np.nan))
    features = Features(values, detected, start_s, columns)
    digest = extractor_digest(FakeExtractor(modality))
    return FeatureRow(row["utterance_id"], features, reason, input_digest(row, modality), digest)


def corpus(*rows, face=(True, True, True, False)):
    """Return manifest and features."""
    tables = {
        m: to_table([spoken_features(r, m, face) for r in rows], feature_schema(FakeExtractor(m)))
        for m in MODALITIES
    }
    return make_manifest(list(rows), SETTINGS), tables


def shown(split, modality, i):
    """Return the first column of an utterance's steps, None where nothing was detected."""
    ragged = split.modalities[modality]
    values, detected = ragged.rows(ragged.values)[i][:, 0], ragged.rows(ragged.detected)[i]
    return [v if d else None for v, d in zip(values.tolist(), detected, strict=True)]


def times(split, modality, i):
    ragged = split.modalities[modality]
    return ragged.rows(ragged.time_s)[i]


# The comma belongs to no word; it is at 8.5 of 13 characters.
TOKEN_TIMES = [0, 0.25, 0.85, 0.85, 8.5 / 13 * 2, 1.75, 0]


@pytest.mark.parametrize("params", [NONE, POOL, WORDS])
def test_tokens_are_at_the_centre_of_their_word(params):
    train = build_tensors(*corpus(spoken(0, times=TIMES)), params)["train"]
    np.testing.assert_allclose(times(train, "text", 0), TOKEN_TIMES, rtol=1e-6)


def test_words_get_the_mean_of_the_steps_in_their_time():
    """Sound is centred at .125, .375, ...: Hi has 0 and 1, there 2 to 4, you 6 and 7.

    The face is centred at .25, .75, 1.25, 1.75: Hi has 0, there 1, you the undetected step.
    """
    train = build_tensors(*corpus(spoken(0, times=TIMES)), WORDS)["train"]
    assert shown(train, "acoustic", 0) == [None, 0.5, 3, 3, None, 6.5, None]
    assert shown(train, "visual", 0) == [None, 0, 1, 1, None, None, None]
    for modality in ("acoustic", "visual"):
        assert np.array_equal(times(train, modality, 0), times(train, "text", 0))
    assert shown(train, "text", 0) == list(range(7))


def test_words_without_times_are_spread_over_the_utterance():
    """Hi is [0, .3077) s, `there,` [.4615, 1.3846), you [1.5385, 2): steps 0; 2 to 5; 6, 7."""
    rows = [spoken(0), spoken(1, times=TIMES)]
    train = build_tensors(*corpus(*rows), WORDS)["train"]
    assert shown(train, "acoustic", 0) == [None, 0, 3.5, 3.5, None, 6.5, None]
    there = (3 + 9) / 2 / 13 * 2
    expected = [0, 1 / 13 * 2, there, there, 8.5 / 13 * 2, 11.5 / 13 * 2, 0]
    np.testing.assert_allclose(times(train, "text", 0), expected, rtol=1e-6)


def test_pooling_gives_each_token_an_equal_segment():
    """Five tokens; sound 0:2, 1:4, 3:5, 4:7, 6:8 of eight; face 0:1, 0:2, 1:3, 2:4, 3:4 of four."""
    train = build_tensors(*corpus(spoken(0)), POOL)["train"]
    assert shown(train, "acoustic", 0) == [None, 0.5, 2, 3.5, 5, 6.5, None]
    assert shown(train, "visual", 0) == [None, 0, 0.5, 1.5, 2, None, None]
    assert np.array_equal(times(train, "visual", 0), times(train, "text", 0))


@pytest.mark.parametrize("params", [POOL, WORDS])
def test_without_text_sound_and_face_have_equal_segments(params):
    rows = [spoken(0, transcript=""), spoken(1, times=TIMES)]
    train = build_tensors(*corpus(*rows), params)["train"]
    assert shown(train, "text", 0) == []
    assert shown(train, "acoustic", 0) == [0.5, 2.5, 4.5, 6.5]
    assert shown(train, "visual", 0) == [0, 1, 2, None]
    assert times(train, "visual", 0).tolist() == [0.25, 0.75, 1.25, 1.75]


@pytest.mark.parametrize(
    ("face", "reason"), [([False] * 4, "no_face"), ([False, False, True, False], "outside_words")]
)
def test_a_face_seen_nowhere_or_only_in_a_pause_is_naturally_missing(face, reason):
    """The third step of the face is centred at 1.25 s, between two words."""
    manifest, tables = corpus(spoken(0, times=TIMES), face=face)
    assert shown(build_tensors(manifest, tables, WORDS)["train"], "visual", 0) == []
    summary = summary_of(manifest, tables, WORDS)
    assert summary["visual"]["missing"] == {reason: 1}
    assert summary["acoustic"]["missing"] == {}


def test_a_corpus_without_any_word_times_is_refused():
    with pytest.raises(FeatureError, match=r"no utterance .* word times .*pool"):
        build_tensors(*corpus(spoken(0), spoken(1, times=[])), WORDS)


def test_a_model_refuses_tensors_with_another_alignment():
    manifest, tables = corpus(spoken(0, times=TIMES))
    kinds = [NONE, POOL, WORDS, WORDS.model_copy(update={"segments": 5})]
    splits = [build_tensors(manifest, tables, params)["train"] for params in kinds]
    assert [s.metadata.get("align") for s in splits] == [None, "pool", "words", "words"]
    digests = [s.metadata["features"]["acoustic"]["digest"] for s in splits]
    assert digests[0] == extractor_digest(FakeExtractor("acoustic"))
    assert len(set(digests)) == len(kinds)
    assert len({s.metadata["features"]["text"]["digest"] for s in splits}) == 1
    model = TrainedModel(None, None, {"features": splits[2].metadata["features"]})
    model.check_features(splits[2])
    with pytest.raises(FeatureError, match="acoustic features"):
        model.check_features(splits[1])


ALL = [
    spoken(0, times=TIMES), spoken(1), spoken(2, transcript=""),
    spoken(3, times=TIMES, split="valid"), spoken(4, times=TIMES, split="test"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "counts"), [(WORDS, (3, 1, 1)), (POOL, (0, 0, 5)), (NONE, None)]
)
def test_the_summary_counts_alignments_and_unknown_tokens(params, counts):
    summary = summary_of(*corpus(*ALL), params)
    assert summary["text"]["truncated"] == 0
    assert summary["text"]["unknown_tokens"] == 1 / 5
    assert summary.get("aligned_by") == (
        counts and dict(zip(("words", "characters", "segments"), counts, strict=True))
    )


@pytest.mark.parametrize(
    ("behind", "cut"), [(" and", 1), ("!", 1), (" \n", 0), ("\ufe0f\u200b", 0), ("\U0001f600", 1)]
)
def test_characters_that_tokenizers_drop_do_not_count_as_cut(behind, cut):
    summary = summary_of(*corpus(spoken(0, transcript=TRANSCRIPT + behind)), NONE)
    assert summary["text"]["truncated"] == cut


@pytest.mark.parametrize("params", [POOL, WORDS])
def test_masks_and_batches_accept_aligned_tensors(params, tmp_path):
    write_tensors(build_tensors(*corpus(*ALL), params), tmp_path)
    splits = read_tensors(tmp_path)
    mask = load_params(MaskParams, section="mask")
    for pattern in get_args(Pattern):
        steps = {name: split.steps for name, split in splits.items()}
        settings = mask.model_copy(update={"pattern": pattern})
        masks = mask_corpus(steps, rate=0.5, params=settings)
        for name, split in splits.items():
            text = split.modalities["text"]
            vectors = [torch.from_numpy(v) for v in text.rows(text.values)]
            observed = masks.observed[name]
            utterances = MaskedUtterances(split, observed, vectors, no_scaling(split.dims))
            batch = utterances.batch(range(len(utterances)))
            for modality in MODALITIES:
                assert bool(torch.isfinite(batch.values[modality]).all())
                assert not batch.values[modality][batch.missing[modality]].any() or (
                    modality == "text"  # comes from the encoder
                )


def test_structured_masks_hide_a_word_in_all_its_steps_and_modalities():
    """Over 100 seeds at rate 0.5, the word is sometimes hidden and sometimes kept."""
    train = build_tensors(*corpus(spoken(0, times=TIMES)), WORDS)["train"]
    mask = load_params(MaskParams, section="mask")
    outcomes = set()
    for seed in range(100):
        settings = mask.model_copy(update={"pattern": "structured", "seed": seed})
        observed = mask_corpus({"train": train.steps}, rate=0.5, params=settings).observed["train"]
        # The two tokens of `there`.
        word = {bool(observed[m][0][i]) for m in MODALITIES for i in (2, 3)}
        assert len(word) == 1
        outcomes |= word
    assert outcomes == {True, False}


def test_the_stage_writes_tensors_and_warns_of_words_without_times(tmp_path, monkeypatch, capsys):
    manifest, tables = corpus(*ALL)
    monkeypatch.chdir(tmp_path)
    write_manifest(manifest, tmp_path / "manifest.parquet")
    for modality, table in tables.items():
        (tmp_path / modality).mkdir()
        pq.write_table(table, tmp_path / modality / "00000-of-00001.parquet")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"tensors": WORDS.model_dump()}))
    arguments = "--manifest manifest.parquet --features . --out tensors --summary features.json"
    main(arguments.split())
    assert "manifest.parquet: 1 of 5 utterances have no word times" in capsys.readouterr().err
    summary = json.loads((tmp_path / "features.json").read_text())
    assert summary["aligned_by"] == {"words": 3, "characters": 1, "segments": 1}
    assert read_tensors(tmp_path / "tensors")["train"].metadata["align"] == "words"
