"""The utterances of an epoch under their masks, and the order of its batches."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from mitfrnet.data.masked import MaskedUtterances, mask_utterances
from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.ragged import Observed
from mitfrnet.data.scaling import Scaling
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.missing import WHOLE_PATTERNS, MaskParams, Masks, mask_steps

# Number of batches whose clips are sorted by length together. With the lengths of CMU-MOSI and
# batches of 24, a tenth of all steps is then padding; in random batches it is more than half.
_SORTED_TOGETHER = 16


def shuffled_batches(
    steps: NDArray[np.int64], size: int, *, seed: int, epoch: int
) -> list[NDArray]:
    """Return the rows of each batch of an epoch: every utterance once, similar lengths together.

    The utterances are shuffled, sorted by length within windows of 16 batches, and the batches
    shuffled. Their sizes differ by one at most: in a small last batch utterances would count for
    more, and BatchNorm would use poor statistics.

    Args:
        steps: lengths, (utterances,).
        size: the largest size of a batch.
        seed: of the order.
        epoch: each epoch has its own order, whatever came before.
    """
    random = np.random.default_rng([seed, epoch])
    parts = np.array_split(random.permutation(len(steps)), -(-len(steps) // size))
    ordered = []
    for first in range(0, len(parts), _SORTED_TOGETHER):
        window = parts[first : first + _SORTED_TOGETHER]
        rows = np.concatenate(window)
        rows = rows[np.argsort(steps[rows], kind="stable")]
        ordered += np.split(rows, np.cumsum([len(p) for p in window])[:-1])
    return [ordered[i] for i in random.permutation(len(ordered))]


def sorted_batches(steps: NDArray[np.int64], size: int) -> list[NDArray]:
    """Return the rows of batches in order of length, for validation."""
    return np.array_split(np.argsort(steps, kind="stable"), -(-len(steps) // size))


class Utterances:
    """The utterances of training and validation under their masks.

    Args:
        splits: complete features.
        masks: what is hidden of them.
        scaling: of acoustic and visual features.
        frozen: encodes masked transcripts; None: the network encodes the token ids.
        redrawn: as `frozen`, for masks that serve one epoch only.
        device: where features are kept and batches are made.
    """

    def __init__(
        self,
        splits: Mapping[str, SplitTensors],
        masks: Masks,
        scaling: Scaling,
        *,
        frozen: FrozenText | None,
        redrawn: FrozenText | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._split, self._scaling, self._redrawn = splits["train"], scaling, redrawn
        self._device = device
        self._params = MaskParams(**masks.metadata["params"])
        self._whole = masks.metadata["pattern"] in WHOLE_PATTERNS
        self.valid = self._prepare(splits["valid"], masks.observed["valid"], frozen)
        self._train = None
        if masks.metadata["protocol"] != "random_train":
            self._train = self._prepare(self._split, masks.observed["train"], frozen)

    @property
    def training_clips(self) -> int:
        """Return the number of utterances in an epoch."""
        return len(self._split.ids)

    def train(self, epoch: int) -> MaskedUtterances:
        """Return the training utterances of an epoch, counted from 1."""
        if self._train is not None:
            return self._train
        observed = mask_steps(
            self._split.steps, rate=None, split="train", params=self._params, epoch=epoch
        )
        return self._prepare(self._split, observed, self._redrawn)

    def _prepare(
        self, split: SplitTensors, observed: Observed, text: FrozenText | None
    ) -> MaskedUtterances:
        return mask_utterances(
            split, observed, self._scaling, text, whole=self._whole, device=self._device
        )
