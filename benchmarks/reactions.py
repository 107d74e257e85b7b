"""How soon eagleray notices what happens to it: a worker that is killed, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

TRIES = 5

INTERRUPTED = """
import signal
import time
import eagleray
from eagleray.dask import ray_dask_get

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell in the background has ignored stays so
eagleray.init(num_cpus=2)
ray_dask_get({"a": (abs, 1)}, "a")
print("ready", flush=True)
try:
    ray_dask_get({("sleep", i): (time.sleep, 20) for i in range(10)}, [("sleep", i) for i in range(10)])
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
"""


def death_ms() -> float:
    """From SIGKILL of an idle worker to the session's knowing that it has ended; the slowest of some tries."""
    import eagleray
    from eagleray._engine import native
    from eagleray.dask import ray_dask_get

    slowest = 0.0
    eagleray.init(num_cpus=2)
    try:
        for _ in range(TRIES):
            ray_dask_get({("a", i): (time.sleep, 0.001) for i in range(20)}, [("a", i) for i in range(20)])
            victim = next(w for w in native.workers() if w["state"] in ("idle", "busy"))
            start = time.perf_counter()
            os.kill(victim["pid"], signal.SIGKILL)
            while any(w["id"] == victim["id"] and w["state"] != "ended" for w in native.workers()):
                time.sleep(0.0002)
            slowest = max(slowest, time.perf_counter() - start)
    finally:
        eagleray.shutdown()
    return slowest * 1e3


def interrupt_ms() -> float:
    """From SIGINT to a program in `get` to its `except KeyboardInterrupt`; the slowest of some tries."""
    slowest = 0.0
    for _ in range(TRIES):
        with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            if program.stdout.readline() != "ready\n":
                raise SystemExit("the program to be interrupted did not start")
            time.sleep(0.3)
            start = time.monotonic()
            program.send_signal(signal.SIGINT)
            slowest = max(slowest, float(program.stdout.readline()) - start)
    return slowest * 1e3
