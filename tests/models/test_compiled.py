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


def test_each_head_width_is_cached_under_its_own_name():
    """Processes that compile two widths at once would damage each other's files."""
    kernels = [*compiled.attention_kernels(2), *compiled.attention_kernels(3)]
    names = {kernel.py_func.__qualname__ for kernel in kernels}
    assert names == {
        "attention_2", "attention_2_backward", "attention_3", "attention_3_backward"
    }  # fmt: skip


def test_the_cache_is_reused_and_a_damaged_one_does_no_harm(tmp_path):
    def run() -> str:
        process = subprocess.run(
            [sys.executable, "-c", DROP],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return process.stdout

    expected = run()
    (cached,) = tmp_path.rglob("*.nbc")
    written = cached.stat().st_mtime_ns
    assert run() == expected
    assert cached.stat().st_mtime_ns == written
    cached.write_bytes(b"")
    assert run() == expected
