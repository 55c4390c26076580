"""The ``brainlab`` command: nouns, then verbs. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lab.cli import (
    allocate,
    bench,
    brain,
    compare,
    data,
    demo,
    doctor,
    inspect,
    listing,
    quantize,
    sensitivity,
    zoo,
)
from lab.cli.options import new_app
from lab.errors import STOPPED_CODE, explain, show

app = new_app("Look at low-bit diffusion models, and decode fMRI through them.")
app.command("doctor")(doctor.doctor)
app.command("list")(listing.list_things)
app.command("demo")(demo.demo)
app.command("inspect")(inspect.inspect)
app.command("plan")(quantize.plan)
app.command("quantize")(quantize.quantize)
app.command("compare")(compare.compare)
app.command("allocate")(allocate.allocate)
app.command("sensitivity")(sensitivity.sensitivity)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(zoo.app, name="zoo")
app.add_typer(brain.app, name="brain")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"brainlab {version('brainit-lab')}\n")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version),
]


@app.callback()
def root(version: Version = False) -> None:
    """Look at low-bit diffusion models, and decode fMRI through them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code == STOPPED_CODE:
        # files are whole or absent already; taking torch down would keep a person waiting for a second
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes one line on stderr.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``brainlab``.
    """
    from lab.cli.interrupt import prompt_stop

    debug = bool(os.environ.get("BRAINLAB_DEBUG"))
    try:
        with prompt_stop():
            code = app(args=list(arguments), prog_name="brainlab", standalone_mode=False)
            sys.stdout.flush()
    except Exception as error:  # the one place where everything is caught, to be said in one line
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            return _usage(error)
        if type(error).__name__ == "Abort":  # how older versions of typer pass Ctrl-C on
            return show(KeyboardInterrupt())
        if isinstance(error, BrokenPipeError):
            # Whoever read us has gone; keep Python from complaining about it when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return explain(error).code
        return show(error, debug)
    except KeyboardInterrupt as error:
        return show(error)
    if code == STOPPED_CODE:
        return show(KeyboardInterrupt())
    return code if isinstance(code, int) else 0


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
