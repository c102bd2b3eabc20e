"""``tuner dashboard``: optuna-dashboard on the experiment's storage and artifacts."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import example, experiment
from cli.show import note


@example(
    "tuner dashboard",
    "tuner dashboard --port 9000",
    "tuner dashboard --host 0.0.0.0 --allow-host lab-server",
)
def dashboard(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 127.0.0.1 is this machine alone.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to listen on.", metavar="PORT")
    ] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME[:PORT]",
            help="Another name that browsers may reach it by; this machine's own always are.",
        ),
    ] = None,
    allow_delete: Annotated[
        bool, typer.Option("--allow-delete", help="Let studies be deleted in the browser.")
    ] = False,
) -> None:
    """Inspect the search in a browser, also while it runs; notes are all that can be changed there.

    optuna-dashboard shows its CREATE button and bins all the same, and has no option that hides them: both are refused, bins
    unless --allow-delete is given.
    """
    from studies.dashboard.serve import dashboard_server
    from studies.database.stores import open_stores

    with open_stores(experiment()) as stores:
        if host not in ("127.0.0.1", "localhost", "::1"):
            note(
                f"warning: anyone who reaches {host} can read these studies"
                f"{' and delete them' if allow_delete else ''}: the dashboard asks for no password; "
                f"put it behind a tunnel (ssh -L {port}:127.0.0.1:{port})"
            )
        with dashboard_server(
            stores, host, port, allowed=allow_host or (), allow_delete=allow_delete
        ) as server:
            shown = f"[{host}]" if ":" in host else host
            shown_only = "CREATE is" if allow_delete else "CREATE and the bins are"
            note(
                f"{shown_only} refused, though optuna-dashboard always shows {'it' if allow_delete else 'them'}"
            )
            note(f"dashboard on http://{shown}:{port}/ ; end it with Ctrl-C")
            server.serve_forever()
