"""The ``brainlab`` command: nouns, then verbs. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lab.cli.early import leave_when_stopped
from lab.stopped import STOPPED_CODE, Cancelled

SPINS = "3000"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    leave_when_stopped()
    _whole_streams()
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code == STOPPED_CODE:
        # files are whole or absent already; taking torch down would keep a person waiting for a second
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _whole_streams() -> None:
    """Put the null device where standard streams are closed: a file would get their number and text."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes one line on stderr.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``brainlab``.
    """
    from threading import Event

    from lab.cli import commands
    from lab.cli.interrupt import prompt_stop
    from lab.errors import explain, show

    calm_threads()
    debug, stop = bool(os.environ.get("BRAINLAB_DEBUG")), Event()
    try:
        with prompt_stop(stop):
            app = commands.tree()
            code = app(args=list(arguments), prog_name="brainlab", standalone_mode=False, obj=stop)
            sys.stdout.flush()
    except Exception as error:  # the one place where everything is caught, to be said in one line
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            return _usage(error)
        if isinstance(error, BrokenPipeError):
            # Whoever read us has gone; keep Python from complaining about it when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return explain(error).code
        return show(error, debug)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | Cancelled):
            return show(KeyboardInterrupt())
        raise
    return code if isinstance(code, int) else 0


def calm_threads() -> None:
    """Let OpenMP's waiting threads rest soon; before torch is loaded, unless the user has chosen.

    GNU's OpenMP spins without limit between two loops, so that two commands at once on two cores are 15 to 45
    times slower than alone; with a short spin 2 to 2.5 times, and alone nothing is lost.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        sys.stdout.write(context.get_help() + "\n")
        return 0
    command = context.command_path if context is not None else "brainlab"
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    sys.stderr.write(f"{command}: {message} ({command} --help)\n")
    return 2


if __name__ == "__main__":
    main()
