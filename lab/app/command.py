"""Job behind ``brainlab app``: the pages in a browser, until it is stopped."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from lab.app.places import LOOPBACK
from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, line, setting


class Settings(contract.Settings):
    """Open the app: look, quantize, compare, decode, in a browser.

    It asks nothing of the outside, and only this machine can open it unless --host says otherwise.
    """

    host: str = setting("127.0.0.1", "address to listen at; 0.0.0.0 lets other machines in")
    port: int = setting(7860, "port; 0 picks a free one", ge=0, le=65535)
    auth: str = setting("", "USER:PASSWORD that a visitor must give; empty: none")
    runs: Path = setting(Path("runs"), "folder of the runs that are shown, and where new ones go")


class Result(contract.Result):
    """The address it had."""

    url: str

    def tables(self) -> list[contract.Table]:
        """Return one line."""
        return [line(f"{self.url} was stopped")]


def run(settings: Settings, context: Context) -> Result:
    """Serve until stopped.

    Raises
    ------
    InputError
        The port is taken, ``runs`` is a file, or ``auth`` is not USER:PASSWORD.
    """
    auth = login(settings.auth)
    home = settings.runs.absolute()
    above = next(place for place in (home, *home.parents) if place.exists())
    if not above.is_dir():
        raise InputError(f"--runs {settings.runs}: {above} is a file; give a folder")
    check_host(settings.host)
    if warning := exposed(settings):
        sys.stderr.write(f"brainlab app: {warning}\n")
    sys.stderr.write("starting ... (some seconds)\n")
    from lab.app.server import serve, warm
    from lab.app.work import WORKER

    warm()
    app, url = serve(settings.host, settings.port, auth, settings.runs)
    sys.stderr.write(f"open {url} in a browser; Ctrl-C ends it\n")
    try:
        context.stop.wait()
    finally:
        app.close(verbose=False)
        WORKER.rest()
    return Result(url=url)


def check_host(host: str) -> None:
    """Refuse an address that is not this machine's; the server would try a hundred ports there.

    Raises
    ------
    InputError
        The name is unknown, or of another machine.
    """
    try:
        fault: OSError | None = None
        for family, kind, number, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, number) as tried:
                    tried.bind(address)
                return  # a name may have an address of a protocol that is switched off
            except OSError as error:
                fault = fault or error
        if fault is not None:
            raise fault
    except OSError as error:
        raise InputError(
            f"--host {host}: cannot be listened at ({(error.strerror or str(error)).lower()}); allowed: an "
            "address of this machine, as 127.0.0.1, or 0.0.0.0 for all of them"
        ) from None


def login(words: str) -> tuple[str, str] | None:
    """Split USER:PASSWORD.

    Raises
    ------
    InputError
        There is no colon, or one side is empty (the words are not repeated: they are a secret).
    """
    if not words:
        return None
    user, _, password = words.partition(":")
    if not user or not password:
        raise InputError("--auth: write USER:PASSWORD, both not empty")
    return user, password


def exposed(settings: Settings) -> str:
    """Return a warning where others can reach the app; empty on loopback."""
    if settings.host in LOOPBACK:
        return ""
    if settings.auth:
        return (f"warning: every machine that reaches {settings.host} can log in over plain HTTP; "
                "put it behind TLS")  # fmt: skip
    return (
        f"warning: everybody who reaches {settings.host} can read the runs and start jobs; give --auth "
        "USER:PASSWORD, or leave --host out"
    )
