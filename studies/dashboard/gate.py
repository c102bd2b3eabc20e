"""Which requests reach optuna-dashboard, which asks for no password and does whatever it is told.

A page from elsewhere, open in the same browser, can send requests to this machine too. Two things tell them apart: the name
that the browser believes to speak to (a hostile name that resolves to 127.0.0.1 is none of ours), and the page that sent
them, which browsers name in ``Origin`` whenever something is to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself."""

READING = ("GET", "HEAD")

NOTES = re.compile(r"/api/studies/\d+(/\d+)?/note")
"""Notes on a study or a trial, which nothing is computed from."""


class Gate:
    """Passes on what reads, and what writes notes; deletion only where it is allowed.

    Everything else that optuna-dashboard could change (names, results and states of trials, attributes, new studies) would
    contradict what a search has written, and is always refused.

    Parameters
    ----------
    application
        What is behind it.
    hosts
        ``name:port`` that a browser may address; see :func:`allowed_hosts`.
    allow_delete
        Whether studies and files may be deleted.
    """

    def __init__(
        self, application: WSGIApplication, hosts: Iterable[str], *, allow_delete: bool = False
    ) -> None:
        self._application = application
        self._hosts = frozenset(host.lower() for host in hosts)
        self._allow_delete = allow_delete

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer a request, or say why not."""
        reason = self._refusal(environ)
        if reason is None:
            return self._application(environ, _unframed(start))
        text = f"{reason}\n".encode()
        start(
            "403 Forbidden",
            [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))],
        )
        return [text]

    def _refusal(self, environ: dict[str, Any]) -> str | None:
        host = environ.get("HTTP_HOST", "").lower()
        if host not in self._hosts:
            return (
                "this dashboard is not known by that name; "
                "start it with 'tuner dashboard --allow-host NAME:PORT' if it should be"
            )
        method = environ["REQUEST_METHOD"]
        if method in READING:
            return None
        if environ.get("HTTP_ORIGIN", "").lower() not in (f"http://{host}", f"https://{host}"):
            return "only pages of this dashboard can change anything"
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        if method == "PUT" and NOTES.fullmatch(path):
            return None
        if method == "DELETE":
            if self._allow_delete:
                return None
            return "deleting is off; use 'tuner study delete', or start 'tuner dashboard --allow-delete'"
        return "the dashboard changes nothing but notes; studies are made by 'tuner study create'"


def allowed_hosts(host: str, port: int, others: Iterable[str] = ()) -> list[str]:
    """List the ``name:port`` by which a dashboard may be addressed.

    Parameters
    ----------
    host
        Address that it listens on; one that means every address is no name.
    port
        Port that it listens on.
    others
        ``NAME`` or ``NAME:PORT``, as it is reached through a tunnel or from another machine.
    """
    names = [*LOOPBACK, *others]
    if host not in ("", "0.0.0.0", "::"):
        names.append(f"[{host}]" if ":" in host else host)
    out = []
    for name in names:
        if re.search(r":\d+$", name):
            out.append(name)
        else:
            # Browsers leave out the port that the scheme implies.
            out += [f"{name}:{port}", *([name] if port == 80 else [])]
    return list(dict.fromkeys(out))


def _unframed(start: StartResponse) -> Callable[..., Any]:
    """Answers that no other page may show within itself, to have its buttons clicked."""

    def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start(
            status, [*headers, ("Content-Security-Policy", "frame-ancestors 'none'")], *rest
        )

    return started
