import pytest
import torch

from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.training import devices
from mitfrnet.training.devices import explaining_memory, launch
from mitfrnet.training.load import load_model_params
from mitfrnet.workers.params import RunParams


@pytest.mark.parametrize(
    ("size", "processes", "message"),
    [
        (24, 1, r"a batch of 24 does not fit .* batch_size 16 with accumulate 3 makes"),
        (9, 1, r"a batch of 9 does not fit .* batch_size 6 with accumulate 3 makes"),
        (1, 1, r"a batch of 1 does not fit .* bf16-mixed"),
        (24, 4, r"a batch of 6 does not fit .* batch_size 16 with accumulate 3 makes"),
    ],
)
def test_too_little_memory_says_what_would_fit(size, processes, message):
    """A step takes two batches; the processes share each batch."""
    optimiser = load_model_params("mitfrnet").optimiser.model_copy(
        update={"batch_size": size, "accumulate": 2}
    )
    with (
        pytest.raises(TrainingError, match=message),
        explaining_memory("mitfrnet", optimiser, processes),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_more_devices_than_there_are_is_one_line(monkeypatch):
    """It is noticed before anything starts: each device is a process that imports all of this."""
    monkeypatch.setattr(devices, "Fabric", lambda **_: pytest.fail("processes would have started"))
    run = RunParams(workers=1, timeout_seconds=1, devices=9999)
    with pytest.raises(ParamsError, match=r"params\.yaml: run\.devices: 9999 \(expected at most"):
        launch("32-true", run)
