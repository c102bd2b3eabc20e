"""Random operations on experiments, and a model of what must be true beside them.

``python -m tests.soak.chaos --sequences 500 --seed 0``: each sequence is 30 operations, drawn by seed: studies created, made
anew with other settings, deleted (by the command, or through optuna), copied, exported; one to four workers started, killed,
stopped and continued; what a stopped worker works on taken from under it; bytes of kept files flipped, the locks removed,
``doctor`` called (:mod:`tests.soak.sequence`). Training is a stand-in whose results say what was trained
(:mod:`tests.soak.stand_in`), so an operation takes a fraction of a second and every number in the database and in the kept
files can be told from any other; who asked and told which trial is written down in the same transactions
(:mod:`tests.soak.journal`). After every operation what is there is compared with what must be (:mod:`tests.soak.model`); at
the end the search is finished and compared. ``--planted KIND`` takes one thing out that guards against all this
(:mod:`tests.soak.plants`), and is to be found.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from tests.soak.plants import PLANTS
from tests.soak.sequence import DOCUMENT, Sequence
from tests.soak.zygote import Zygote
from tests.studies import server
from tests.studies.small import write_experiment


def chaos(
    folder: Path,
    sequences: int,
    seed: int,
    *,
    first: int = 0,
    database: str = "sqlite",
    planted: str = "",
) -> tuple[list[str], Counter[str]]:
    """Play sequences; returns what was found wrong, and how often each operation was done.

    Parameters
    ----------
    first
        Number of the first sequence.
    database
        ``sqlite`` or ``postgresql``.
    planted
        A fault of :mod:`tests.soak.plants`, with which it ends when it has found something.
    """
    config = write_experiment(folder / "start", folder / "shared", DOCUMENT)
    config.write_text(config.read_text().replace(", factorized = {  }", ""))
    problems: list[str] = []
    done: Counter[str] = Counter()
    with (
        server.running() if database == "postgresql" else nullcontext() as postgres,
        Zygote(("tests.soak.stand_in:install", f"{planted} {config}")) as zygote,
    ):
        for number in range(first, first + sequences):
            where = folder / f"sequence-{number}"
            draw = random.Random(f"{seed} {number}")
            sequence = Sequence(zygote, folder / "start", where, postgres, draw)
            found = sequence.play()
            done.update(sequence.done)
            done["sequences"] += 1
            if found:
                history = " ".join(sequence.log)
                problems += [f"sequence {number} of seed {seed} ({history}): {p}" for p in found]
                print(problems[-len(found)], file=sys.stderr, flush=True)
                if planted:
                    break
            else:
                shutil.rmtree(where)
            if (number + 1) % 10 == 0:
                print(
                    f"{number + 1} sequences, {len(problems)} problems", file=sys.stderr, flush=True
                )
    return problems, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--planted", choices=tuple(PLANTS), default="", help="what is not checked")
    parser.add_argument("--folder", type=Path, help="kept when something is wrong")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    begun = time.monotonic()
    problems, done = chaos(
        folder,
        options.sequences,
        options.seed,
        first=options.first,
        database=options.database,
        planted=options.planted,
    )
    print(f"seed                 {options.seed}, {options.database}, from {options.first}")
    if options.planted:
        print(f"planted              {options.planted}")
    print(f"sequences            {done.pop('sequences')} in {time.monotonic() - begun:.0f} s")
    print(f"operations           {sum(done.values())}")
    for name, count in sorted(done.items()):
        print(f"  {name:<19}{count}")
    print(f"problems             {len(problems)}")
    for problem in problems[:20]:
        print(f"  {problem[:1500]}")
    if problems:
        print(f"what is left lies in {folder}")
    else:
        shutil.rmtree(folder)
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
