"""The command ``asynctrace``: look at what was traced. It needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from asynctrace.cli.exits import CommandLineError, Exit, OutputClosedError, OutputFailedError
from asynctrace.errors import ConfigurationError, MissingExtraError, StoreError, TraceNotFoundError

_EXTRA = ("typer", "rich", "click")
"""What the extra brings; any of them missing means that the extra is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the words after ``asynctrace``; by default those of the process.

    Returns:
        an exit code, see :class:`Exit`.

    Example:
        >>> main(["--version"])
        asynctrace ...
        0
    """
    from asynctrace.cli.output import watched

    with watched():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from asynctrace.cli.app import run

        return run(arguments)
    except OutputClosedError:
        return Exit.BROKEN_PIPE
    except OutputFailedError as error:
        return _say(str(error), Exit.OUTPUT)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except TraceNotFoundError as error:
        return _say(str(error), Exit.NOT_FOUND)
    except StoreError as error:
        return _say(f"cannot read the store: {error}", Exit.UNREADABLE)
    except MissingExtraError as error:
        return _say(str(error), Exit.MISSING_EXTRA)
    except (ConfigurationError, CommandLineError) as error:
        return _say(str(error), Exit.USAGE)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        return _say(
            f"the command needs {error.name}, which is not installed: pip install 'asynctrace[cli]'",
            Exit.MISSING_EXTRA,
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _say(f"{where}{error.strerror or error}", Exit.UNREADABLE)


def _say(problem: str, code: Exit) -> Exit:
    from asynctrace.cli.words import one_line

    print(f"asynctrace: {one_line(problem)}", file=sys.stderr)
    return code
