"""A speech recogniser small enough to create in a test."""

import json

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def write_whisper(folder):
    """Write a Whisper model of a few dimensions that writes letters at random.

    Returns the folder.
    """
    folder.mkdir(exist_ok=True)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>",
               "<|transcribe|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    # As in real tokenizers: bytes, then special tokens, then the 1501 times of 30 s.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    times = [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    ids = {token: i for i, token in enumerate([*letters, *special, *times])}
    backend = Tokenizer(models.BPE(vocab={t: ids[t] for t in letters}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    backend.add_tokens(times)
    backend.save(str(folder / "tokenizer.json"))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    tokenizer_config = {"tokenizer_class": "WhisperTokenizer", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)

    spoken = {*"abcdefghijklmnopqrstuvwxyz", "\u0120"}  # the last stands for a space
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(1)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(ids), num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_ffn_dim=16, max_target_positions=64, init_std=1.0, pad_token_id=end,
            bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        )
    )  # fmt: skip
    model.generation_config = transformers.GenerationConfig(
        alignment_heads=[[0, 0], [0, 1]], is_multilingual=True, max_length=24,
        lang_to_id={t: ids[t] for t in ("<|en|>", "<|de|>")},
        task_to_id={t: ids[f"<|{t}|>"] for t in ("translate", "transcribe")},
        no_timestamps_token_id=ids["<|notimestamps|>"], prev_sot_token_id=ids["<|startofprev|>"],
        max_initial_timestamp_index=50, decoder_start_token_id=start, bos_token_id=end,
        eos_token_id=end, pad_token_id=end,
        # All but letters, spaces and the end.
        suppress_tokens=[ids[t] for t in [*letters, *special[1:]] if t not in spoken],
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder
