"""A Chinese corpus from clips to scores, with a BERT of Chinese vocabulary made here."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from tests.helpers.clips import tone, write_clip, write_corpus
from tests.helpers.running import run_stage, write_params

pytestmark = pytest.mark.slow

PHRASES = ["我很喜欢这个电影", "太糟糕了,我要走", "还可以。", "今天的天气真好呀"]
MODES = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
CELL = {"corpus": "dianying", "model": "mitfrnet", "missing_rate": 0.5, "seed": 1}
UNKNOWN = 3


def write_encoder(folder):
    """Write a small BERT whose vocabulary is the characters of the phrases but one, 呀."""
    characters = sorted(set("".join(PHRASES)) - {"呀"})
    folder.mkdir()
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *characters]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return tokens


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chinese")
    tokens = write_encoder(folder / "encoder")
    corpus = folder / "raw" / "dianying"
    rows = [
        (f"video_{i:04d}", "0001", PHRASES[i % 4], (i % 4 - 1) / 5, mode)
        for i, mode in enumerate(MODES)
    ]
    for video_id, clip_id, *_ in rows:
        path = corpus / "Raw" / video_id / f"{clip_id}.mkv"
        path.parent.mkdir(parents=True)
        write_clip(path, np.arange(6) / 10, tone(0.6))
    write_corpus(corpus, rows)
    write_params(
        folder,
        corpora__dianying={"layout": "mmsa", "language": "zh", "scale": "sims"},
        extract__text__encoders={"en": "embedded", "zh": str(folder / "encoder")},
        train__max_epochs=1,
    )
    for stage, item in [
        ("ingest", {"corpus": "dianying"}),
        *(("extract", {"corpus": "dianying", "modality": m}) for m in ("text", "acoustic")),
        ("extract", {"corpus": "dianying", "modality": "visual"}),
        ("tensors", {"corpus": "dianying"}),
        ("mask", {"corpus": "dianying", "missing_rate": 0.5}),
        ("train", CELL),
        ("evaluate", CELL),
    ]:
        process = run_stage(folder, stage, **item)
        assert process.returncode == 0, (stage, process.stderr[-2000:])
    return folder, tokens


def test_each_character_is_a_token_of_the_language_s_encoder(finished):
    folder, tokens = finished
    files = sorted((folder / "data/dianying/features/text").glob("*.parquet"))
    rows = {r["utterance_id"]: r for file in files for r in pq.read_table(file).to_pylist()}
    row = rows["video_0003/0001"]
    found = [tokens[i] for i in row["input_ids"]]
    assert found == ["[CLS]", *"今天的天气真好", "[UNK]", "[SEP]"]  # of 呀 it knows nothing
    assert list(zip(row["char_start"], row["char_end"], strict=True))[1:-1] == [
        (i, i + 1) for i in range(8)
    ]
    assert np.shape(row["values"]) == (10, 24)


def test_hidden_characters_become_this_vocabulary_s_unknown_token(finished):
    folder, tokens = finished
    meta = json.loads(pq.read_schema(next((folder / "data/dianying/features/text").glob(
        "*.parquet"))).metadata[b"mitfrnet"])  # fmt: skip
    assert meta["identity"]["unknown_id"] == UNKNOWN == tokens.index("[UNK]")
    assert meta["identity"]["encoder"].endswith("/encoder")


def test_it_is_trained_and_scored_on_its_scale(finished):
    folder, _ = finished
    scores = json.loads((folder / "metrics/dianying/mitfrnet/0.5/1.json").read_text())
    assert scores["n"] == 2
    assert {"acc2", "acc3", "acc5", "mae"} <= set(scores)
    assert load_file(folder / "data/dianying/tensors/test.safetensors")["label"].tolist() == (
        pytest.approx([-0.2, 0.0])
    )


def test_another_vocabulary_than_the_stored_ids_is_an_error(finished):
    """The encoder's folder gets a vocabulary in another order; its weights stay the same."""
    folder, tokens = finished
    vocabulary = folder / "encoder" / "tokenizer.json"
    kept = vocabulary.read_text(encoding="utf-8")
    content = json.loads(kept)
    table = content["model"]["vocab"]
    table[tokens[5]], table[tokens[6]] = table[tokens[6]], table[tokens[5]]
    vocabulary.write_text(json.dumps(content), encoding="utf-8")
    try:
        for cache in (folder / "work").rglob("*.safetensors"):
            cache.unlink()
        process = run_stage(folder, "train", **CELL)
    finally:
        vocabulary.write_text(kept, encoding="utf-8")
    assert process.returncode == 1
    assert "another vocabulary than the stored token ids" in process.stderr.splitlines()[-1]
