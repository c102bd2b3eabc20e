"""Processes that run ``tuner`` without importing everything anew: forked from one that has, and killed like any other.

The parent imports, opens nothing, holds nothing and starts no threads; each child is a process of its own, with its own
process group, that runs the command line and nothing else.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass
class Child:
    """A running ``tuner``, or one that ran: how it ended is kept here, as its number is another's soon after."""

    pid: int
    log: Path
    zygote: Zygote
    code: int | None = None

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def until(self, text: str, seconds: float = 120.0) -> bool:
        """Wait for a text in its output; False when it ended without it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if text in self.text():
                return True
            if self.poll() is not None:
                return text in self.text()
            time.sleep(0.005)
        raise TimeoutError(f"{text!r} not in {seconds} s: {self.text()}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self.code is None:
            self.code = self.zygote.ended(self.pid)
        return self.code

    def wait(self, seconds: float = 300.0) -> int:
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"still running after {seconds} s: {self.text()}")
            time.sleep(0.005)
        return code


class Zygote:
    """Starts children; used as a context manager.

    Parameters
    ----------
    prepare
        ``module:function`` and its argument, called once before any child is started.
    """

    def __init__(self, prepare: tuple[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {"MPLBACKEND": "Agg"},
        )
        assert self._ask({"what": "hello"}) == "hello"
        if prepare is not None:
            assert self._ask({"what": "prepare", "call": prepare}) == "hello"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _ask(self, request: Mapping[str, object]) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self, words: Sequence[object], log: Path, env: Mapping[str, str] | None = None
    ) -> Child:
        """Run ``tuner`` with these words; what it prints goes to `log`."""
        log.unlink(missing_ok=True)
        pid = self._ask(
            {"what": "start", "words": list(map(str, words)), "log": str(log), "env": env or {}}
        )
        assert isinstance(pid, int)
        return Child(pid, log, self)

    def ended(self, pid: int) -> int | None:
        """Exit code of a child that was not asked for before; None while it runs."""
        code = self._ask({"what": "poll", "pid": pid})
        assert code is None or isinstance(code, int)
        return code


def _child(words: Sequence[str], log: str, env: Mapping[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    from cli import progress
    from cli.main import main
    from studies.search import round as rounds

    progress.LINE_EVERY = 0.0  # every step of progress is a line
    rounds.REPORT_SECONDS = 0.05  # short rounds write reports while they run, too
    code = 1
    try:
        code = main(list(words))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _import_everything() -> None:
    """Import what a command imports on its way, also inside torch and matplotlib, so that a child need not."""
    import sqlalchemy.dialects.postgresql.psycopg
    import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

    import studies.database.stores
    import studies.results.scores
    import studies.workspace  # noqa: F401
    from cli import main
    from studies.dashboard.pictures import trial_curves
    from tuner.backbones import load_backbone
    from tuner.features.extract import extract  # noqa: F401
    from tuner.figures import maps, style
    from tuner.figures.curves import learning_curves
    from tuner.fitting.trainer import Trainer  # noqa: F401

    # Each child runs one command: it is as good as new, whoever made it.
    main.build, main.load = cache(main.build), cache(main.load)
    main.build()
    for name in main.COMMANDS:
        main.load(name)
    backbone = load_backbone("efficientnet_lite0")
    backbone.describe(backbone.resolve(["_blocks.2"], 32), 32)
    style.render(learning_curves(trial_curves([])), "png", dpi=50)
    style.render(maps.masks([[[1.0]]], ["0"]), "png", dpi=50)


def _serve() -> None:
    import torch

    from tuner.recordings.hdf5 import probe

    torch.set_num_threads(1)
    probe.ENABLED = False
    _import_everything()
    gc.collect()
    gc.freeze()  # or a child's collector would copy every page that it looks at
    for line in sys.stdin:
        request = json.loads(line)
        answer: object = "hello"
        if request["what"] == "start":
            pid = os.fork()
            if pid == 0:
                _child(request["words"], request["log"], request["env"])
            answer = pid
        elif request["what"] == "prepare":
            where, argument = request["call"]
            module, function = where.split(":")
            getattr(importlib.import_module(module), function)(argument)
            gc.freeze()
        elif request["what"] == "poll":
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
