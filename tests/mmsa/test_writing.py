"""Exported files have MMSA's form, and an import gives back the same arrays."""

import pickle
import pickletools

import numpy as np
import pytest

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.ingest import IngestParams, build_manifest, probe_clips, summarise
from mitfrnet.corpus.layouts.features import read_features_layout, stored_descriptions
from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.extract import extract_corpus
from mitfrnet.features.shards import read_features
from mitfrnet.features.text_params import TextParams
from mitfrnet.labels import SCALES, ClassScale
from mitfrnet.mmsa import import_corpus, write
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.params import parse_params
from mitfrnet.workers.params import RunParams
from tests.helpers.mmsa_files import write_corpus

pytestmark = pytest.mark.slow

INGEST = {
    "max_bad_fraction": 0.1,
    "split": {"train": 0.7, "valid": 0.1, "test": 0.2, "seed": 1},
    "limits": {"max_duration_s": 600, "max_pixels": 10**6, "max_bytes": 10**6, "max_streams": 4},
}


def exported(folder, **options):
    """Return the tensors of a small corpus, and the content of its export."""
    splits = write_corpus(folder / "data", **options)
    write(folder / "data", folder / "out.pkl")
    return splits, pickle.loads((folder / "out.pkl").read_bytes())


def through_the_pipeline(folder, name="again"):
    """Return manifest and tensors of an imported corpus, made by the stages."""
    raw = folder / "raw" / name
    corpus = parse_params(
        CorpusParams, {"layout": "features", "language": "en", "scale": "mosi"}, where="corpora"
    )
    ingest = parse_params(IngestParams, INGEST, where="ingest")
    clips = read_features_layout(raw, corpus, Problems())
    probed = probe_clips(raw, clips, ingest.limits, RunParams(workers=1, timeout_seconds=60))
    manifest = build_manifest(probed, corpus, ingest, stored=stored_descriptions(raw))
    features = {}
    text = TextParams(encoders={"en": "embedded"}, max_tokens=8, batch_size=1, device="cpu")
    for m in MODALITIES:
        out = folder / "features" / m
        extract_corpus(m, manifest, raw, out, text, RunParams(workers=1, timeout_seconds=60))
        features[m] = read_features(out)
    return manifest, build_tensors(manifest, features, TensorParams(align="none", segments=50))


def test_the_file_has_what_mmsa_reads(tmp_path):
    splits, content = exported(tmp_path, modality_labels=True)
    for name in SPLITS:
        keys, split = content[name], splits[name]
        n = len(split.ids)
        assert keys["id"][3] == split.ids[3].replace("/", "$_$")
        assert keys["text_bert"].shape == (n, 3, keys["text"].shape[1])
        assert keys["text_bert"].dtype == keys["audio"].dtype == np.float32
        assert keys["audio"].shape == (n, keys["audio_detected"].shape[1], 5)
        assert min(keys["audio_lengths"]) == min(keys["vision_lengths"]) == 1
        assert keys["annotations"] == ["Negative", "Negative", "Neutral", "Positive", "Positive"]
        assert keys["classification_labels"].tolist() == [0, 0, 1, 2, 2]
        assert np.array_equal(keys["regression_labels"], split.label)
        for letter in "TAV":
            assert np.allclose(keys[f"regression_labels_{letter}"], split.label / 2)
        assert keys["text_bert"][1, :, :3].tolist() == [[101, 102, 0], [1, 1, 0], [0, 0, 0]]
        for key in ("text", "audio", "vision"):
            assert np.isfinite(keys[key]).all()
        ragged = split.modalities["visual"]
        for i, (row, detected) in enumerate(
            zip(ragged.rows(ragged.values), ragged.rows(ragged.detected), strict=True)
        ):
            assert np.array_equal(keys["vision"][i, : len(row)], row)
            assert not keys["vision"][i, len(row) :].any()
            assert np.array_equal(keys["vision_detected"][i, : len(row)], detected)


def test_labels_of_modalities_are_left_out_where_there_are_none(tmp_path):
    _, content = exported(tmp_path)
    assert "regression_labels_T" not in content["train"]


@pytest.mark.parametrize("aligned", [False, True])
def test_only_unaligned_files_have_lengths(tmp_path, aligned):
    _, content = exported(tmp_path, aligned=aligned)
    for keys in content.values():
        assert ("audio_lengths" in keys) == ("text" in keys and not aligned)
    widths = {content["train"][k].shape[1] for k in ("text", "audio", "vision")}
    assert (len(widths) == 1) or not aligned


def test_the_same_corpus_gives_the_same_bytes(tmp_path):
    write_corpus(tmp_path / "data")
    for name in ("a.pkl", "b.pkl"):
        write(tmp_path / "data", tmp_path / name)
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_nothing_written_is_kept_in_memory(tmp_path):
    """A pickler with a memo would hold every array until the end."""
    exported(tmp_path)
    data = (tmp_path / "out.pkl").read_bytes()
    assert not {"MEMOIZE", "BINGET"} & {opcode.name for opcode, *_ in pickletools.genops(data)}


@pytest.mark.parametrize("aligned", [False, True])
def test_importing_an_export_gives_back_the_same_arrays(tmp_path, aligned):
    splits = write_corpus(tmp_path / "data", aligned=aligned, modality_labels=True)
    before = read_manifest(tmp_path / "data" / "manifest.parquet")
    write(tmp_path / "data", tmp_path / "out.pkl")
    summary = import_corpus(
        tmp_path / "out.pkl", tmp_path / "raw" / "again", language="en", scale=SCALES["mosi"]
    )
    assert summary.text == "from the file"
    manifest, again = through_the_pipeline(tmp_path)
    columns = ["utterance_id", "split", "transcript", "label", *(f"label_{m}" for m in MODALITIES)]
    for column in columns:
        expected = before[column]
        if column.startswith("label"):
            expected = expected.cast("float32")
            assert manifest[column].cast("float32").to_pylist() == expected.to_pylist()
        else:
            assert manifest[column].to_pylist() == expected.to_pylist()
    for name, split in splits.items():
        imported = again[name]
        assert imported.ids == split.ids
        assert imported.label.tobytes() == split.label.tobytes()
        assert imported.token_ids.tobytes() == split.token_ids.tobytes()
        assert imported.special.tobytes() == split.special.tobytes()
        for m in MODALITIES:
            for part in ("values", "detected", "offsets"):
                ours = getattr(split.modalities[m], part)
                theirs = getattr(imported.modalities[m], part)
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
                assert ours.tobytes() == theirs.tobytes(), (name, m, part)
            # So a model of one scores the other.
            digests = (s.metadata["features"][m]["digest"] for s in (split, imported))
            assert len(set(digests)) == 1
    assert summarise(manifest)["clips"] == 15


def test_reasons_come_back(tmp_path):
    write_corpus(tmp_path / "data")
    write(tmp_path / "data", tmp_path / "out.pkl")
    summary = import_corpus(
        tmp_path / "out.pkl", tmp_path / "raw" / "again", language="en", scale=SCALES["mosi"]
    )
    assert summary.missing == {
        "text": {"empty_transcript": 3},
        "acoustic": {"no_audio_stream": 3},
        "visual": {"nothing_measured": 3},
    }
    through_the_pipeline(tmp_path)
    reasons = read_features(tmp_path / "features" / "acoustic")["reason"].to_pylist()
    assert reasons.count("no_audio_stream") == 3


def test_corpora_that_mmsa_cannot_read_are_refused(tmp_path):
    classes = ClassScale(classes=("anger", "joy"))
    write_corpus(tmp_path / "classes", scale=classes.model_dump(mode="json"))
    with pytest.raises(FeatureError, match="labels are classes, anger, joy"):
        write(tmp_path / "classes", tmp_path / "out.pkl")
    write_corpus(tmp_path / "unlabelled", scale=None)
    with pytest.raises(FeatureError, match="an unlabelled corpus"):
        write(tmp_path / "unlabelled", tmp_path / "out.pkl")
    write_corpus(tmp_path / "plain")
    (tmp_path / "plain" / "tensors" / "valid.safetensors").unlink()
    with pytest.raises(FeatureError, match=r"valid\.safetensors: not a tensor file"):
        write(tmp_path / "plain", tmp_path / "out.pkl")
    with pytest.raises(FeatureError, match=r"manifest\.parquet: cannot be read"):
        write(tmp_path / "none", tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()


def test_tensors_of_another_manifest_are_refused(tmp_path):
    write_corpus(tmp_path / "data", count=6)
    larger = tmp_path / "data" / "tensors"
    write_corpus(tmp_path / "small", count=5)
    larger.rename(tmp_path / "kept")
    (tmp_path / "small" / "tensors").rename(tmp_path / "gone")
    (tmp_path / "kept").rename(tmp_path / "small" / "tensors")
    with pytest.raises(FeatureError, match=r"v0/05 is not in the manifest beside it"):
        write(tmp_path / "small", tmp_path / "out.pkl")


def test_the_output_must_not_be_a_folder(tmp_path):
    with pytest.raises(FeatureError, match="a folder"):
        write(tmp_path / "data", tmp_path)
