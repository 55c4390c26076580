"""Options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, with sizes, and do nothing.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Fixes data order, initial weights and noise.")]
Root = Annotated[Path | None, typer.Option("--root", help="Folder or file of the dataset.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings from a YAML or JSON file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any setting by name (brainlab list settings); may be repeated."
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]


def new_app(help_text: str) -> typer.Typer:
    """Return an empty group of commands with the house's settings: plain text, one-line errors."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
