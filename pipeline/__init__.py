"""The stages of `dvc.yaml`, one script each."""

import os

# Before torch loads: threads that wait must sleep. Spinning ones make a step ten times slower
# when other stages, or anything else, run on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
