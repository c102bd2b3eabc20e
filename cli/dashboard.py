"""``tuner dashboard``: optuna-dashboard on the experiment's storage and artifacts."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import example, experiment
from cli.show import note


@example("tuner dashboard", "tuner dashboard --port 9000")
def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Inspect the search in a browser, also while it runs."""
    from studies.dashboard.serve import serve
    from studies.database.stores import open_stores

    with open_stores(experiment()) as stores:
        if host not in ("127.0.0.1", "localhost", "::1"):
            note(
                f"warning: anyone who reaches {host} can read, rename and delete these studies: the "
                "dashboard asks for no password; put it behind a tunnel (ssh -L 8080:127.0.0.1:8080)"
            )
        note(f"dashboard on http://{host}:{port}/ ; end it with Ctrl-C")
        serve(stores, host, port)
