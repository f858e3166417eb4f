"""The command `mitfrnet predict`, and a clip for it."""

from tests.helpers.paths import ROOT
from tests.helpers.running import run_python

SAMPLE = ROOT / "raw" / "sample"
SPOKEN = SAMPLE / "Raw" / "speaker02_c" / "0001.mp4"  # of the test split; sound and a face


def run_predict(*argv, cwd=ROOT, **environment):
    """Run `mitfrnet predict` as a user does."""
    return run_python("-m", "mitfrnet.cli", "predict", *argv, cwd=cwd, **environment)
