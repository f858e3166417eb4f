"""The losses of every epoch: as curves in the form of DVCLive, and as a bar on stderr."""

from collections.abc import Mapping
from pathlib import Path

from dvclive import Live
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

WATCHED = "valid/task"  # the loss by which the best epoch is chosen
SECONDS = "seconds"  # what an epoch took; differs from run to run, so it is in no curve


class Curves:
    """Curves of the losses, and a bar over epochs with the last and the best validation loss.

    Args:
        folder: for the curves; None: this process shows and writes nothing.
        max_epochs: where the bar ends.
    """

    def __init__(self, folder: Path | None, max_epochs: int) -> None:
        # By default DVCLive writes into the repository's own dvc.yaml and makes an experiment.
        self._live = folder and Live(str(folder), dvcyaml=None, save_dvc_exp=False)
        self._bar = Progress(
            TextColumn("train {task.description}"),
            BarColumn(),
            TextColumn("epoch {task.completed:.0f} of at most {task.total:.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=folder is None,
        )
        self._task = self._bar.add_task("", total=max_epochs)

    def __enter__(self) -> "Curves":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._live:
            self._live.end()

    def add(self, epoch: Mapping[str, float], best_epoch: int, best_loss: float) -> None:
        """Add an epoch; a resumed training adds those before again."""
        if self._live:
            for name, value in epoch.items():
                if name != SECONDS:
                    self._live.log_metric(name, value)
            self._live.next_step()
        best = f"best {best_loss:.3f} in epoch {best_epoch}"
        shown = f"valid {epoch[WATCHED]:.3f}, {best}"
        self._bar.update(self._task, advance=1, description=shown)
