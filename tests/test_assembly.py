"""Manifest and features of four made clips; tensors in which each step is known."""

import numpy as np
import pytest

from mitfrnet.assembly import build_tensors, summarise_features
from mitfrnet.corpus.manifest import SCHEMA, input_digest, make_manifest
from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Features
from mitfrnet.features.store import Row, extractor_digest, feature_schema, to_table
from mitfrnet.modalities import MODALITIES


class Known:
    version = "1"
    feature_names = ("a", "b")
    units = ("1", "1")
    identity = {}  # noqa: RUF012

    def __init__(self, modality):
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
    """Clip i has i + 1 steps of value i; its last face is not found; clip 3 has no face at all."""
    i = int(row["clip_id"])
    steps = i + 1
    detected = np.ones(steps, dtype=bool)
    reason = None
    if modality == "visual":
        detected[-1] = False
        if i == 3:
            detected[:], reason = False, "no_face"
    values = np.where(detected[:, None], np.float32(i), np.float32(np.nan)).repeat(2, axis=1)
    columns = {n: np.full(steps, i, kind) for n, kind in Known(modality).columns.items()}
    if modality == "text":
        columns["char_start"] = np.arange(steps, dtype=np.int32)
        columns["char_end"] = columns["char_start"] + 2
    features = Features(values, detected, np.arange(steps, dtype=np.float32), columns)
    digest = extractor_digest(Known(modality))
    return Row(row["utterance_id"], features, reason, input_digest(row, modality), digest)


def features(rows=ROWS):
    return {
        m: to_table([feature_row(r, m) for r in rows], feature_schema(Known(m))) for m in MODALITIES
    }


def test_splits_hold_their_own_utterances_with_all_steps():
    splits = build_tensors(MANIFEST, features())
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
    splits = build_tensors(MANIFEST, features())
    visual = splits["test"].modalities["visual"]
    assert visual.values[:, 0].tolist() == [2, 2, 0]
    assert visual.detected.tolist() == [True, True, False]
    assert splits["train"].modalities["visual"].offsets.tolist() == [0, 1, 1]


def test_times_are_the_centres_of_steps():
    """Steps of 1 s are half a second further than their start; those of a clip of one, too."""
    acoustic = build_tensors(MANIFEST, features())["train"].modalities["acoustic"]
    assert acoustic.time_s.tolist() == [0.5, 0.5, 1.5, 2.5, 3.5]
    assert acoustic.time_s.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "duration"),
    [
        ({}, 6),
        ({"start_s": 1.0, "end_s": 5.0}, 4),
        ({"start_s": 4.0, "end_s": 9.0}, 2),  # the file ends before
        ({"duration_s": None}, 1),
        ({"duration_s": 0.0}, 1),
    ],
)
def test_tokens_are_spread_over_the_clip_by_their_place_in_the_transcript(changes, duration):
    """Tokens of characters 0-2, 1-3, 2-4, 3-5 of the 7 of `words 3`: at 1, 2, 3, 4 sevenths."""
    row = ROWS[3] | changes
    splits = build_tensors(make_manifest([row], SETTINGS), features([row]))
    times = splits["train"].modalities["text"].time_s
    np.testing.assert_allclose(times, np.array([1, 2, 3, 4]) / 7 * duration, rtol=1e-6)


def test_a_clip_without_features_or_of_other_bytes_is_refused():
    with pytest.raises(FeatureError, match="no row for v/3"):
        build_tensors(MANIFEST, features(ROWS[:3]))
    replaced = [*ROWS[:3], ROWS[3] | {"digest": "other bytes"}]
    with pytest.raises(FeatureError, match="v/3 was extracted from other input"):
        build_tensors(MANIFEST, features(replaced))


def test_the_summary_counts_reasons_and_shares_detected():
    """Faces found: 0 of 1, 1 of 2, 2 of 3, 0 of 4: the mean share is .2917."""
    summary = summarise_features(features())
    assert summary["visual"]["missing"] == {"no_face": 1}
    assert summary["visual"]["detected_share"]["mean"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 0) / 4)
    assert summary["text"] == {
        "clips": 4, "missing": {}, "steps": 10,
        "detected_share": {"mean": 1.0, "p05": 1.0, "p50": 1.0},
    }  # fmt: skip
