"""How work is done: section `run`, which no stage tracks, since it changes no result."""

import os
import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mitfrnet.params import StageParams


class RunParams(StageParams):
    """Section `run`: how work is done, which no stage tracks.

    It changes no result, but for clips that run out of time, and for a model that several devices
    train together (docs/scale.md).
    """

    backend: Literal["local", "dask"] = "local"  # where clips are processed
    scheduler: str | None = Field(default=None, validate_default=True)  # of Dask: its address
    workers: int = Field(ge=0)  # 0: one per core
    timeout_seconds: float = Field(gt=0)  # a worker that spends longer on one task is killed
    devices: int = Field(default=1, gt=0)  # GPUs, or processes on the CPU, for one model
    nodes: int = Field(default=1, gt=0)  # machines that train one model
    strategy: Literal["auto", "ddp"] = "auto"  # of Lightning; auto: ddp if there are several

    @field_validator("scheduler")
    @classmethod
    def _an_address(cls, scheduler: str | None, info: ValidationInfo) -> str | None:
        right = "expected the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786"
        if scheduler is None and info.data.get("backend") == "dask":
            raise ValueError(f"is needed for backend dask, {right}")
        if scheduler is not None and not re.fullmatch(r"(tcp|tls)://\S+:\d+", scheduler):
            raise ValueError(right)
        return scheduler

    @property
    def slots(self) -> int:
        """Return the number of worker processes to start."""
        return self.workers or len(available_cores())


def available_cores() -> list[int]:
    """Return the cores this process may run on (all, where the system does not say)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
