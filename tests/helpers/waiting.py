import time

import psutil


def wait_for(condition, message="it did not happen in time", seconds=60):
    """Return what `condition` gives as soon as that is something.

    A process or a file that it looks at may be gone, or not be there yet.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (psutil.NoSuchProcess, FileNotFoundError):
            pass
        time.sleep(0.005)
    raise AssertionError(message)
