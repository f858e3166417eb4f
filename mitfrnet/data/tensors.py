"""Ragged tensors of one corpus: all steps of a split end to end, with offsets; no padding."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mitfrnet.data.ragged import RaggedArray, Steps
from mitfrnet.errors import FeatureError
from mitfrnet.files import METADATA_KEY, replacing
from mitfrnet.modalities import MODALITIES, SPLITS


@dataclass(frozen=True)
class ModalityTensors:
    """One modality of a split.

    Attributes:
        values: float32, (steps of all utterances, dim); zero at undetected steps.
        detected: bool, (steps of all utterances,).
        time_s: float32, (steps of all utterances,); centre of each step in seconds, from the
            utterance's start.
        offsets: int64, (utterances + 1,); utterance i has steps offsets[i]:offsets[i + 1].
    """

    values: NDArray[np.float32]
    detected: NDArray[np.bool_]
    time_s: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def rows(self, array: NDArray[Any]) -> RaggedArray[Any]:
        """Return `array`, whose first axis is steps, cut into utterances."""
        return RaggedArray(array, self.offsets)


@dataclass(frozen=True)
class SplitTensors:
    """All utterances of one split, in the order of their ids.

    Attributes:
        ids: utterance ids.
        label: float32, (utterances,); NaN in a corpus without labels.
        modalities: features of each; no steps where a modality is naturally missing.
        token_ids: int32, (steps of text,).
        special: bool, (steps of text,); [CLS] and [SEP].
        metadata: `language` and `scale` of the corpus; `features`, with `version`,
            `feature_names`, `units`, `identity` and `digest` of each modality; and `align` if
            sound and face were aligned to the text.
    """

    ids: list[str]
    label: NDArray[np.float32]
    modalities: dict[str, ModalityTensors]
    token_ids: NDArray[np.int32]
    special: NDArray[np.bool_]
    metadata: dict[str, Any]

    @property
    def dims(self) -> dict[str, int]:
        """Return the number of features of each modality."""
        return {m: self.modalities[m].values.shape[1] for m in MODALITIES}

    @cached_property
    def steps(self) -> Steps:
        """Return the steps for which masks are drawn."""
        return Steps(
            ids=self.ids,
            detected={m: r.rows(r.detected) for m, r in self.modalities.items()},
            special=self.modalities["text"].rows(self.special),
            times={m: r.rows(r.time_s) for m, r in self.modalities.items()},
        )


def write_tensors(splits: dict[str, SplitTensors], folder: Path) -> None:
    """Write `<split>.safetensors` for every split."""
    for name, split in splits.items():
        tensors: dict[str, NDArray[Any]] = {
            "label": split.label,
            "text.token_ids": split.token_ids,
            "text.special": split.special,
        }
        for modality, ragged in split.modalities.items():
            for part in _PARTS:
                tensors[f"{modality}.{part}"] = np.ascontiguousarray(getattr(ragged, part))
        # One key only: safetensors writes several in random order.
        metadata = {METADATA_KEY: json.dumps(split.metadata | {"ids": split.ids}, sort_keys=True)}
        with replacing(folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary, metadata=metadata)


_PARTS = ("values", "detected", "time_s", "offsets")


def read_tensors(folder: Path, splits: Iterable[str] = SPLITS) -> dict[str, SplitTensors]:
    """Return the named splits; their arrays are memory-mapped, and read where they are used.

    Raises:
        FeatureError: a file is absent or does not hold what the tensors stage writes.
    """
    return {split: _read_split(folder / f"{split}.safetensors") for split in splits}


def read_steps(folder: Path) -> dict[str, Steps]:
    """Return the steps of all splits, for which masks are drawn; features are not read.

    Raises:
        FeatureError: as for `read_tensors`.
    """
    steps = {}
    for split in SPLITS:
        with _opened(folder / f"{split}.safetensors", "numpy") as (file, metadata):
            offsets = {m: file.get_tensor(f"{m}.offsets") for m in MODALITIES}
            detected, times = (
                {m: RaggedArray(file.get_tensor(f"{m}.{part}"), offsets[m]) for m in MODALITIES}
                for part in ("detected", "time_s")
            )
            special = RaggedArray(file.get_tensor("text.special"), offsets["text"])
            steps[split] = Steps(metadata["ids"], detected, special, times)
    return steps


def _read_split(path: Path) -> SplitTensors:
    # safetensors maps files for PyTorch, and copies them for NumPy.
    with _opened(path, "pt") as (file, metadata):
        mapped = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        return SplitTensors(
            ids=metadata.pop("ids"),
            label=mapped["label"],
            modalities={
                m: ModalityTensors(**{part: mapped[f"{m}.{part}"] for part in _PARTS})
                for m in MODALITIES
            },
            token_ids=mapped["text.token_ids"],
            special=mapped["text.special"],
            metadata=metadata,
        )


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a tensor file; a damaged or absent one raises a `FeatureError`."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file, json.loads(file.metadata()[METADATA_KEY])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FeatureError(f"{path}: not a tensor file ({error}); run the tensors stage") from error
