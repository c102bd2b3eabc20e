"""``tuner optimize``: bring every selected study to its number of trials."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import example, experiment
from cli.progress import ProgressDisplay
from cli.selectors import select, selects
from cli.show import detail, note
from cli.workers import OnOption, WorkersOption, check_workers, engine_of
from studies.search.listener import Listener

if TYPE_CHECKING:
    from studies.search.ledger import Done


class Terminal(Listener):
    """Tells the person at the terminal how the search goes."""

    def __init__(self, progress: ProgressDisplay) -> None:
        self.progress = progress
        self.target = 0
        self.finished = 0
        self._shown: dict[str, str] = {}

    def started(self, finished: int, target: int) -> None:
        """Begin the bar at what is there already."""
        self.finished, self.target = finished, target
        if finished < target:
            self.progress.update("trials", finished, target)

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        """Show how far the round is."""
        self.progress.update(f"{what}: {running} of {trials} trials run", step, steps)

    def working(
        self, worker: str, what: str, trials: int, step: int, steps: int, running: int
    ) -> None:
        """Show how far the round of one of several workers is, in a line of the worker's own."""
        task = f"worker {worker}: {what}, {trials} trials"
        if self._shown.get(worker) != task:
            self.resting(worker)
            self._shown[worker] = task
        self.progress.update(task, step, steps)

    def resting(self, worker: str) -> None:
        """Take the worker's line away."""
        if (task := self._shown.pop(worker, None)) is not None:
            self.progress.forget(task)

    def told(self, finished: int) -> None:
        """Advance the bar."""
        self.finished = finished
        self.progress.update("trials", finished, self.target)

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        note(message)


@selects
@example(
    "tuner optimize --n-trials 50",
    "tuner optimize --n-trials 50 --region V4 --timeout 3600",
    "tuner optimize --n-trials 50 --on slurm --workers 8",
)
def optimize(
    n_trials: Annotated[
        int,
        typer.Option(
            "--n-trials",
            min=1,
            help="Finished trials (complete and pruned) that every selected study is brought to.",
            metavar="N",
        ),
    ],
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0, help="Begin no new round after so many.", metavar="SECONDS"
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            "--order",
            help="What comes next: the studies with the fewest trials (fewest), shallow layers (depth), region after "
            "region (region), or trials where they can still change the best (promising).",
            metavar="ORDER",
        ),
    ] = "fewest",
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            min=1,
            help="Begin no new round once the selected studies have so many finished trials; "
            "those of closed forms do not count.",
            metavar="TOTAL",
        ),
    ] = None,
    until_settled: Annotated[
        bool,
        typer.Option(
            "--until-settled",
            help="Stop a study before N trials where further ones are expected to gain under 0.5 %.",
        ),
    ] = False,
    on: OnOption = None,
    workers: WorkersOption = None,
) -> None:
    """Search; run it again to go on, and several times at once to share the work.

    Every selected study is brought to N finished trials, never N more. Killed or interrupted, it loses no finished trial.

    What is fitted in closed form (smooth) comes first, and needs its grid of settings whatever N is.
    """
    from studies.database.stores import as_made, open_stores
    from studies.results.worth import worth
    from studies.search.ledger import Ledger
    from studies.search.queue import ORDERS
    from studies.search.search import Search
    from studies.workspace import Workspace
    from tuner.errors import unknown

    if order not in ORDERS:
        raise unknown("--order", order, ORDERS)
    check_workers(on, workers)
    with ProgressDisplay() as progress:
        workspace = Workspace(as_made(experiment()), progress.update)
        workspace.scorer = worth
        with open_stores(workspace.experiment) as stores:
            specs = select(workspace.grid)
            for line in workspace.recording.notes:
                detail(f"note: {line}")
            fixed = sum(spec.target(2) == 1 for spec in specs)
            if fixed:
                note(f"{fixed} studies have nothing to vary: one trial is all that each needs")
            ledger = partial(
                Ledger,
                workspace,
                stores,
                specs,
                n_trials=n_trials,
                timeout=timeout,
                budget=budget,
                until_settled=until_settled,
                listener=Terminal(progress),
            )
            try:
                if on is None:
                    done = Search(ledger(), order=order).run()
                else:
                    from studies.cluster.coordinator import Coordinator

                    # The time given begins when there are workers.
                    with engine_of(on, workers, workspace) as engine:
                        done = Coordinator(ledger(), engine, order=order).run()
            except KeyboardInterrupt:  # SIGTERM too
                note("finished trials are kept; run the same command again to go on")
                raise
    _conclude(done, len(specs))


def _conclude(done: Done, studies: int) -> None:
    left = studies - len(done.gone)
    if done.trials == 0 and done.complete and not done.set_aside and left:
        note(f"nothing to do: all {left} studies have their trials")
    else:
        note(f"{done.trials} trials finished ({done.pruned} pruned) in {left} studies")
        if not done.complete:
            note("not all studies have their trials yet; run the command again to go on")
        else:
            note("see 'tuner study list', or write figures with 'tuner export heatmap -o OUT'")
    if done.settled:
        note(
            f"{done.settled} studies are settled before that: further trials would gain under 0.5 %"
        )
    if done.gone:
        note(f"{len(done.gone)} studies were left out: they are not the ones that were begun with")
    if done.set_aside:
        from tuner.errors import TunerError

        name, message = next(iter(done.set_aside.items()))
        raise TunerError(
            f"{len(done.set_aside)} studies were set aside; {name}: {message}; "
            "'tuner study show' has the trials, 'tuner doctor' what can be done"
        )
