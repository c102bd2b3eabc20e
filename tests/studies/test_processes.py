"""Several processes on one SQLite experiment, and one that reads it all the time."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path

import pytest

from cli.main import main
from studies.config.experiment import load_experiment
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.database.summaries import listing, summaries
from tests.soak.outcome import differences, look
from tests.soak.zygote import Zygote
from tests.studies.conftest import MakeExperiment
from tests.studies.server import free_port

TRIALS = 8


def test_four_processes_share_the_work_and_do_nothing_twice(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    config = make_experiment({"training": {"steps": 60, "report_every": 6}})
    alone = make_experiment({"training": {"steps": 60, "report_every": 6}}, "alone")
    with Zygote() as zygote:
        made = [
            zygote.start(["study", "create", "-c", config], tmp_path / f"create-{i}")
            for i in range(4)
        ]
        assert [child.wait() for child in made] == [0] * 4, [child.text() for child in made]
        words = ["optimize", "--n-trials", TRIALS, "-c", config]
        children = [zygote.start(words, tmp_path / f"log-{i}") for i in range(4)]
        stores = open_stores(load_experiment(config))
        while any(
            child.poll() is None for child in children
        ):  # looked at meanwhile, which stops nobody
            listing(
                summaries(stores.storage, list(stored_studies(stores.storage).values())),
                stores.claims,
            )
            time.sleep(0.02)
        stores.storage.close()
        texts = [child.text() for child in children]
        assert [child.wait() for child in children] == [0] * 4, texts
        one = zygote.start(["study", "create", "-c", alone], tmp_path / "create")
        assert one.wait() == 0
        one = zygote.start(["optimize", "--n-trials", TRIALS, "-c", alone], tmp_path / "alone.log")
        assert one.wait() == 0
    assert not any("locked" in text for text in texts)
    seen = look(config, TRIALS)
    assert seen.problems == []
    done = [
        int(line.split()[0]) for text in texts for line in text.splitlines() if "finished (" in line
    ]
    assert sum(done) == seen.trials == 8 * TRIALS
    assert (
        sum(count > 0 for count in done) >= 2
    )  # how many run at once is not to be seen from outside
    # Studies whose neighbour was ready in time are those of a single worker; all are where it is not asked.
    shallow = {n: o for n, o in seen.outcome.items() if "_blocks.2" in n}
    same = {n: o for n, o in look(alone, TRIALS).outcome.items() if "_blocks.2" in n}
    assert differences(shallow, same) == []


@pytest.mark.parametrize("seconds", [0.0])
def test_the_dashboard_polled_hard_costs_no_trial(
    make_experiment: MakeExperiment, tmp_path: Path, seconds: float
) -> None:
    config = make_experiment({"training": {"steps": 60, "report_every": 6}})
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    port = free_port()
    answers: list[int] = []
    stop = threading.Event()

    def poll() -> None:
        paths = ["/api/studies", "/api/studies/1", "/api/studies/2?after=0", "/dashboard"]
        while not stop.is_set():
            for path in paths:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as got:
                    got.read()
                    answers.append(got.status)
            time.sleep(seconds)

    with Zygote() as zygote:
        board = zygote.start(["dashboard", "--port", port, "-c", config], tmp_path / "board")
        assert board.until("dashboard on")
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
                break
            except OSError:
                time.sleep(0.05)
        readers = [threading.Thread(target=poll) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            search = zygote.start(
                ["optimize", "--n-trials", TRIALS, "-c", config], tmp_path / "search"
            )
            code = search.wait()
        finally:
            stop.set()
            for reader in readers:
                reader.join()
            board.kill(2)
        assert board.wait() == 130
        assert code == 0, search.text()
    seen = look(config, TRIALS)
    assert seen.problems == []
    assert len(answers) >= 20
    assert set(answers) == {200}
