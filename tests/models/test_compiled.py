import os
import subprocess
import sys

from mitfrnet.models import compiled

DROP = """
import numpy as np
from mitfrnet.models import compiled
x = np.ones(100, np.float32)
out = np.empty_like(x)
compiled.dropout_kernel()(x, out, np.uint64(1), compiled.threshold(0.5))
print(out.sum())
"""


def test_each_head_width_is_kept_under_a_name_of_its_own():
    """Processes that compile two widths at once would write into one another's files."""
    kernels = [*compiled.attention_kernels(2), *compiled.attention_kernels(3)]
    names = {kernel.py_func.__qualname__ for kernel in kernels}
    assert names == {
        "attention_2", "attention_2_backward", "attention_3", "attention_3_backward"
    }  # fmt: skip


def test_what_is_kept_is_found_again_and_does_no_harm_when_damaged(tmp_path):
    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", DROP],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    expected = run()
    (kept,) = tmp_path.rglob("*.nbc")
    written = kept.stat().st_mtime_ns
    assert run() == expected
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"")
    assert run() == expected
