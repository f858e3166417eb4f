"""How the work is run: section `run` of params.yaml."""

import os
import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mitfrnet.params import StageParams


class RunParams(StageParams):
    """Section `run`. No stage depends on it, since it does not change results.

    There are two exceptions: clips that time out, and models that several devices train together
    (docs/scale.md).
    """

    backend: Literal["local", "dask"] = "local"  # where clips are processed
    scheduler: str | None = Field(default=None, validate_default=True)  # its address, for Dask
    workers: int = Field(ge=0)  # 0: one per core
    timeout_seconds: float = Field(gt=0)  # a worker is killed if one task takes longer
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
    """Return the cores this process may run on; all, if the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
