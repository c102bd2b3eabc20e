"""optuna-dashboard on an experiment's database and kept files."""

from __future__ import annotations

import errno
import socket
import warnings
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from studies.dashboard.gate import Gate, allowed_hosts
from studies.database.stores import Stores
from tuner.errors import EnvironmentFailure, InputError


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a slow page does not hold up the others."""

    daemon_threads = True


class _Server6(_Server):
    """On an address of IPv6."""

    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """No line for every request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def dashboard_server(
    stores: Stores,
    host: str,
    port: int,
    *,
    allowed: Iterable[str] = (),
    allow_delete: bool = False,
) -> WSGIServer:
    """Bind optuna-dashboard, behind its gate, to an address; it answers once it is told to serve.

    Parameters
    ----------
    host, port
        Address and port that it listens on.
    allowed
        Further names by which it may be addressed; see :func:`studies.dashboard.gate.allowed_hosts`.
    allow_delete
        Whether studies and files may be deleted in it.

    Raises
    ------
    InputError
        If the address is not this machine's.
    EnvironmentFailure
        If the port is taken.
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
    kind = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, port, application, server_class=kind, handler_class=_Quiet)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"--host {host}: {error.strerror}; give an address of this machine, such as 127.0.0.1"
            ) from error
        raise EnvironmentFailure(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    hosts = allowed_hosts(host, server.server_port, allowed)
    server.set_app(Gate(application, hosts, allow_delete=allow_delete))
    return server
