"""What a benchmark ran on, in words."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import torch

from tuner.readouts.native.build import compiler


def processor() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads to compute with: as many as cores, or ``OMP_NUM_THREADS``."""
    return int(os.environ.get("OMP_NUM_THREADS", cores()))


def publish(text: str, out: Path) -> None:
    """Write a page, and show it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def describe(command: str) -> str:
    """One paragraph: command, day, machine, versions."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    code = "with a C compiler" if compiler() else "without a C compiler"
    return (
        f"`{command}`, {time.strftime('%Y-%m-%d')}: {processor()}, {cores()} cores "
        f"({torch.backends.cpu.get_cpu_capability()}), {memory:.0f} GiB of memory, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, {code}. "
        "Not measured on a GPU."
    )


def load() -> float:
    """How many processes want to run, averaged over a minute; 0 where it is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
