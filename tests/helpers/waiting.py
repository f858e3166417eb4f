import time

import psutil


def wait_for(condition, message="it did not happen in time", seconds=60):
    """Return the first true value of `condition`, whose processes and files may come and go."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (psutil.NoSuchProcess, FileNotFoundError):
            pass
        time.sleep(0.005)
    raise AssertionError(message)
