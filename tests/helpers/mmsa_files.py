"""Small feature files in MMSA's form, and a small corpus to export."""

import pickle

import numpy as np

from mitfrnet.corpus.manifest import make_manifest, write_manifest
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, write_tensors
from mitfrnet.features.extractor import Clip
from mitfrnet.features.imported import ImportedExtractor
from mitfrnet.features.shards import feature_schema
from mitfrnet.features.text import TextExtractor
from mitfrnet.features.text_encoder import load_tokenizer
from mitfrnet.features.text_params import TextParams
from mitfrnet.files import metadata_of
from mitfrnet.labels import SCALES
from mitfrnet.modalities import MODALITIES, SPLITS

SENTENCES = [
    "what a lovely film",
    "no",
    "the food was cold, the waiter colder",
    "well I liked it 😀",
    "it is fine",
]


def split_of(n, seed, *, width=12, times=(9, 7), dims=(5, 20), video="vid", sentences=SENTENCES):
    """Return one unaligned split, padded with zeros at the end."""
    rng = np.random.default_rng(seed)
    tokenizer = load_tokenizer("embedded")
    texts = [sentences[i % len(sentences)] for i in range(n)]
    text_bert = np.zeros((n, 3, width), np.float64)
    for i, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        text_bert[i, 0, : len(ids)] = ids
        text_bert[i, 1, : len(ids)] = 1
    arrays, lengths = {}, {}
    for key, time, dim in zip(("audio", "vision"), times, dims, strict=True):
        lengths[key] = rng.integers(2, time + 1, n)
        arrays[key] = rng.normal(size=(n, time, dim))
        arrays[key][np.arange(time) >= lengths[key][:, None]] = 0
    return {
        "id": [f"{video}{seed}$_${i}" for i in range(n)],
        "raw_text": texts,
        "text": rng.normal(size=(n, width, 8)).astype(np.float32),
        "text_bert": text_bert,
        **arrays,
        "audio_lengths": lengths["audio"].tolist(),
        "vision_lengths": lengths["vision"].tolist(),
        "annotations": ["Neutral"] * n,
        "classification_labels": np.ones(n),
        "regression_labels": np.linspace(-2, 2, n),
    }


def file_of(**options):
    """Return the content of a file, with splits of 5, 3 and 2 utterances."""
    sizes = zip(SPLITS, (5, 3, 2), strict=True)
    return {s: split_of(n, seed, **options) for seed, (s, n) in enumerate(sizes)}


def aligned_file():
    """Return a file whose modalities have one step per token."""
    content = file_of(times=(12, 12))
    for split in content.values():
        real = split["text_bert"][:, 1] == 1
        for key in ("audio", "vision"):
            split[key] = np.random.default_rng(1).normal(size=split[key].shape) * real[..., None]
            del split[f"{key}_lengths"]
    return content


def save(content, path, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def write_corpus(
    folder, *, dims=(5, 4), aligned=False, modality_labels=False, count=5, scale="mosi"
):
    """Write manifest and tensors of a corpus with missing modalities and undetected steps.

    In each split, utterance 1 has no transcript, 2 no sound, 3 no face, and some visual steps are
    undetected. One transcript contains an emoji.
    """
    params = TextParams(encoders={"en": "embedded"}, max_tokens=64, batch_size=1, device="cpu")
    text = TextExtractor(params, "embedded")
    extractors = {
        "text": text,
        **{
            m: ImportedExtractor(
                m,
                {
                    "version": "1",
                    "feature_names": [f"{m}_{i}" for i in range(dim)],
                    "units": ["1"] * dim,
                    "identity": {"hop": 512},
                },
            )
            for m, dim in zip(("acoustic", "visual"), dims, strict=True)
        },
    }
    descriptions = {m: metadata_of(feature_schema(e)) for m, e in extractors.items()}
    scale = SCALES[scale].model_dump(mode="json") if isinstance(scale, str) else scale
    metadata = {"language": "en", "scale": scale, "features": descriptions}
    rows, splits = [], {}
    for number, name in enumerate(SPLITS):
        rng = np.random.default_rng(number)
        ids = [f"v{number}/{i:02d}" for i in range(count)]
        labels = (np.arange(count) % 5 - 2) * 0.7
        transcripts = ["" if i % 5 == 1 else SENTENCES[i % 5] for i in range(count)]
        tokens = [
            None if not t else text.extract(Clip(i, None, transcript=t))
            for i, t in zip(ids, transcripts, strict=True)
        ]
        steps = {"text": [0 if t is None else len(t.values) for t in tokens]}
        for m, without in (("acoustic", 2), ("visual", 3)):
            drawn = rng.integers(5, 12, count)
            own = steps["text"] if aligned else drawn
            steps[m] = [0 if i % 5 == without else int(n) for i, n in enumerate(own)]
        present = [t for t in tokens if t is not None]
        modalities = {
            m: _ragged(steps[m], rng, dim, undetected=m == "visual")
            for m, dim in zip(("acoustic", "visual"), dims, strict=True)
        }
        flat = np.concatenate([t.values for t in present])
        modalities["text"] = ModalityTensors(
            flat,
            np.ones(len(flat), bool),
            np.zeros(len(flat), np.float32),
            np.concatenate([[0], np.cumsum(steps["text"])]).astype(np.int64),
        )
        splits[name] = SplitTensors(
            ids=ids,
            label=labels.astype(np.float32),
            modalities={m: modalities[m] for m in MODALITIES},
            token_ids=np.concatenate([t.columns["input_ids"] for t in present]),
            special=np.concatenate([t.columns["special"] for t in present]),
            metadata=metadata,
        )
        for i, utterance_id in enumerate(ids):
            video_id, clip_id = utterance_id.split("/")
            label = float(labels[i])
            rows.append(
                {
                    "utterance_id": utterance_id,
                    "video_id": video_id,
                    "clip_id": clip_id,
                    "split": name,
                    "transcript": transcripts[i],
                    "transcript_source": "table" if transcripts[i] else None,
                    "label": label,
                    **{f"label_{m}": label / 2 for m in MODALITIES if modality_labels},
                    "text_reason": None if transcripts[i] else "empty_transcript",
                    "acoustic_reason": "no_audio_stream" if i % 5 == 2 else None,
                }
            )
    settings = {"language": "en", "scale": scale, "text_encoder": None, "layout": "mmsa"}
    write_manifest(make_manifest(rows, settings), folder / "manifest.parquet")
    write_tensors(splits, folder / "tensors")
    return splits


def _ragged(steps, rng, dim, *, undetected):
    total = sum(steps)
    values = rng.normal(size=(total, dim)).astype(np.float32)
    detected = np.ones(total, bool)
    if undetected:
        detected[:: max(2, total // 4)] = False
    values[~detected] = 0
    offsets = np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
    return ModalityTensors(values, detected, np.zeros(total, np.float32), offsets)
