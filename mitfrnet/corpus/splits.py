"""A seeded split by video, for corpora that are published without one."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from pydantic import Field, model_validator

from mitfrnet.modalities import SPLITS
from mitfrnet.params import StageParams


class SplitParams(StageParams):
    """Section `ingest.split`: used where the corpus table has no `mode` column."""

    train: float = Field(gt=0, lt=1)
    valid: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _sums_to_one(self) -> "SplitParams":
        if abs(self.train + self.valid + self.test - 1) > 1e-6:
            raise ValueError("train, valid and test must add up to 1")
        return self


def assign_splits(video_ids: Sequence[str], params: SplitParams) -> list[str]:
    """Return the split of each clip; all clips of a video get the same one.

    Videos are taken in an order drawn from the seed and their own name, so that it does not
    depend on the order of rows; each goes to the split that has least of its share.
    """
    sizes = Counter(video_ids)

    def drawn(video_id: str) -> bytes:
        return hashlib.sha256(f"{params.seed}/{video_id}".encode()).digest()

    asked = {split: getattr(params, split) * len(video_ids) for split in SPLITS}
    placed = dict.fromkeys(SPLITS, 0)
    split_of: dict[str, str] = {}
    # The largest videos first: a late large one could not be evened out.
    for video_id in sorted(sizes, key=lambda v: (-sizes[v], drawn(v))):
        split = min(SPLITS, key=lambda s: placed[s] / asked[s])
        split_of[video_id] = split
        placed[split] += sizes[video_id]
    return [split_of[video_id] for video_id in video_ids]
