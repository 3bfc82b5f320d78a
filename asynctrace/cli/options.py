"""The options that commands share, and the application made of the commands.

The one module that knows typer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

import asynctrace
from asynctrace.cli.exits import CommandLineError, Exit

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store to read, such as sqlite:./traces.db or file:./logs. "
        "By default the first that can be read in ASYNCTRACE_SINKS, else sqlite:./asynctrace.db.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
NoPager = Annotated[bool, typer.Option("--no-pager", help="Do not page long output on a terminal.")]
Level = Annotated[
    str | None,
    typer.Option(
        "--level", metavar="LEVEL", help="This level or above: debug, info, warning, error, critical."
    ),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="From then on: ISO 8601, or so long ago: 30s, 15m, 2h, 1d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then; as --since.")]
Contained = Annotated[str | None, typer.Option("--text", metavar="TEXT", help="The message contains it.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="The run has this name.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="KEY=VALUE", help="A field has this value. Repeat it for several."),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many; 0 for all.")]

WantedRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run id, its unique beginning or end, or 'latest'.",
        show_default=False,
    ),
]
PerhapsRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Only this run: an id, its unique beginning or end, or 'latest'."),
]
ShowRecords = Annotated[bool, typer.Option("--records/--no-records", help="Records inside the spans.")]
Stacks = Annotated[bool, typer.Option("--stacks", help="Stack traces of exceptions.")]
Picture = Annotated[
    str | None,
    typer.Option("--svg", metavar="FILE", help="Write a picture of the output instead of printing it."),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")]
LastRecords = Annotated[
    int, typer.Option("--lines", "-n", metavar="N", min=0, help="So many of the newest records.")
]
Structure = Annotated[bool, typer.Option("--all", help="Starts and ends of runs and spans, too.")]
Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sinks", metavar="URL", help="Where to record. Repeat it for several.", show_default=False
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Make the same orders and events again.", show_default=False),
]

VerifiedStore = Annotated[
    str | None,
    typer.Argument(metavar="STORE", help="The URL of the store; by default as --store.", show_default=False),
]
Days = Annotated[
    float | None,
    typer.Option(
        "--days", metavar="N", min=0.0, help="Runs whose newest record is older go.", show_default=False
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="N",
        min=0,
        help="While the store takes more, its oldest runs go.",
        show_default=False,
    ),
]
Once = Annotated[bool, typer.Option("--once", help="A record that is stored twice is a failure, too.")]


SpoolAction = Annotated[
    str, typer.Argument(metavar="[ls|replay|purge]", help="List (the default), deliver now, or delete.")
]
DeadAction = Annotated[
    str,
    typer.Argument(
        metavar="[ls|show|replay|purge]", help="Count (the default), list each, deliver again, or delete."
    ),
]
Lane = Annotated[
    str | None,
    typer.Argument(metavar="[LANE]", help="Of this destination only, as `ls` names it.", show_default=False),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Delivering takes no longer.")
]
To = Annotated[str | None, typer.Option("--to", metavar="URL", help="A store that takes everything instead.")]
StateDir = Annotated[
    str | None, typer.Option("--state-dir", metavar="DIRECTORY", help="Where to look; else as configured.")
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asynctrace {asynctrace.__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Look at what asynctrace recorded."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(Exit.USAGE)


_UsageError: Any = typer.BadParameter.__bases__[0]
"""Typer brings click, or depends on it, as its version goes, and does not name this one."""


def make_app(commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """The application: one command for each name."""
    # Without rich's markup, --help does without rich, and starts in half the time.
    app = typer.Typer(
        name="asynctrace",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, command in commands.items():
        app.command(name)(command)
    return app


def run_app(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run a command line; the exit code. Errors of asynctrace go through.

    Raises:
        CommandLineError: the command line cannot be used.
    """
    words = None if arguments is None else list(arguments)
    try:
        code = app(args=words, prog_name="asynctrace", standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "asynctrace"
        raise CommandLineError(f"{error.format_message()} (see {path} --help)") from error
    return int(code or 0)
