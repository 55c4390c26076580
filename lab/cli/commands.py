"""The tree of commands, made from the table of jobs; a job is imported when it runs or shows its help."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import click

from lab.jobs.registry import GROUPS, JOBS, LONG, Job


class JobCommand(click.Command):
    """One job: its options are made from its `Settings` when they are first asked for."""

    def __init__(self, path: str, job: Job) -> None:
        super().__init__(path.split()[-1], short_help=job.title)
        self.path, self.job = path, job
        self._ready = False

    def make_ready(self) -> None:
        """Import the job; make options and help from its settings."""
        if self._ready:
            return
        from inspect import cleandoc

        from lab.cli.options import options
        from lab.jobs.registry import module, usual_time

        settings = module(self.path).Settings
        self.params = options(settings)
        self.help = cleandoc(settings.__doc__ or self.job.title)
        if self.job.seconds >= LONG:
            self.help += f"\n\nTakes {usual_time(self.path)}."
        self._ready = True

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, made now if they were not."""
        self.make_ready()
        return super().get_params(ctx)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help."""
        self.make_ready()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the arguments are, then the options."""
        described = [(p.about["name"], p.about["help"]) for p in self.params if hasattr(p, "about")]
        if described:
            with formatter.section("Arguments"):
                formatter.write_dl(described)
        super().format_options(ctx, formatter)

    def invoke(self, ctx: click.Context) -> int:
        """Run the job and print what it gives."""
        return _go(self.path, dict(ctx.params), ctx.obj or Event())


class Jobs(click.Group):
    """Commands in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)


def tree() -> click.Group:
    """Return the whole command line."""
    root = Jobs("brainlab", help="Look at low-bit diffusion models, and decode fMRI through them.")
    root.params = [
        click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False,
                     callback=_print_version, help="Print the version and leave."),
    ]  # fmt: skip
    for path, job in JOBS.items():
        group, _, verb = path.rpartition(" ")
        parent = root
        if group:
            if group not in root.commands:
                root.add_command(Jobs(group, help=GROUPS[group]))
            parent = root.commands[group]  # type: ignore[assignment]
        parent.add_command(JobCommand(path, job), verb)
    return root


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"brainlab {version('brainit-lab')}")
        ctx.exit()


def _go(path: str, given: dict[str, Any], stop: Event) -> int:
    """Check the settings, run the job, print its result; return the exit code."""
    from lab.cli.options import SHARED, spelling
    from lab.cli.output import emit
    from lab.jobs import registry
    from lab.jobs.contract import Context
    from lab.progress import reporting
    from lab.runs.settings import resolve

    shared = {name: given.pop(name) for name in SHARED}
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    model, file = registry.module(path).Settings, shared["config"]
    spelled = {
        name: flag
        for name, flag in spelling(model).items()
        if name in flags or model.model_fields[name].is_required()
    }
    settings = resolve(model, None if file is None else Path(file), flags, shared["set"], spelled)
    if shared["dry_run"]:
        result = registry.dry_run(path, settings)
    else:
        with reporting() as report:
            result = registry.run(path, settings, Context(report=report, stop=stop))
    emit(result, shared["json"])
    return result.exit_code()
