"""What a worker process of this machine loads first: its standard error goes to a file, to be quoted should it die."""

from __future__ import annotations

import faulthandler
import os
import sys


def dask_setup(worker: object) -> None:
    """Called by Dask when a worker starts."""
    path = os.environ.get("TUNER_WORKER_LOG")
    if path is None:
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    faulthandler.enable()
