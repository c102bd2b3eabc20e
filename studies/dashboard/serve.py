"""optuna-dashboard on an experiment's database and kept files."""

from __future__ import annotations

import warnings
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from studies.database.stores import Stores
from tuner.errors import EnvironmentFailure


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a slow page does not hold up the others."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """No line for every request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def serve(stores: Stores, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises
    ------
    EnvironmentFailure
        If the port is taken or the address is not this machine's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna.artifacts import FileSystemArtifactStore
        from optuna_dashboard import wsgi

        stores.artifacts.folder.mkdir(parents=True, exist_ok=True)
        application = wsgi(
            stores.storage.optuna,
            artifact_store=FileSystemArtifactStore(str(stores.artifacts.folder)),
        )
    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    with server:
        server.serve_forever()
