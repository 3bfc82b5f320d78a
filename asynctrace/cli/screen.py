"""Screen: where the commands print. The one module that knows rich."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.console import RenderableType as RenderableType
from rich.table import Table
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text as Text
from rich.tree import Tree as Tree

LEVEL_STYLES = {10: "dim", 20: "green", 30: "yellow", 40: "red", 50: "bold red"}
STATUS_STYLES = {
    "ok": "green",
    "error": "bold red",
    "cancelled": "yellow",
    "interrupted": "magenta",
    "running": "cyan",
}

_PIECE = 16_384  # characters
_UNBOUNDED = 1_000_000  # columns, where no terminal says how many there are: nothing is wrapped or cut
# The shell looks the pager up, as git does. -F: less ends when one screen is enough; -R: colours stay.
_PAGER = 'LESS="${LESS-FRX}" LV="${LV--c}" exec sh -c "${PAGER:-less}"'
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Screen:
    """Standard output: coloured and as wide as the terminal, plain and unwrapped elsewhere.

    ``NO_COLOR`` takes all colours and styles away, ``FORCE_COLOR`` gives them to a pipe too.

    Args:
        pager: whether what is longer than the terminal goes to the user's pager; not without a terminal.
    """

    def __init__(self, *, pager: bool = False) -> None:
        self._is_terminal = sys.stdout.isatty()
        probe = Console(file=sys.stdout)
        self._pages = pager and self._is_terminal and sys.stdin.isatty()
        self._height = probe.height
        self._console = Console(
            file=sys.stdout,
            color_system=None if probe.no_color else "auto",
            width=None if self._is_terminal else _UNBOUNDED,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
        )

    def show(self, *parts: RenderableType) -> None:
        """Print the parts below each other.

        Raises:
            OutputClosedError: nobody reads any more.
            OutputFailedError: standard output does not take it.
        """
        with self._console.capture() as captured:
            for part in parts:
                self._console.print(part)
        text = captured.get()
        if not self._is_terminal:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        if self._pages and text.count("\n") >= self._height and _page(text):
            return
        write(text)


def write(text: str) -> None:
    """Print the text as it is.

    Raises:
        OutputClosedError: nobody reads any more.
        OutputFailedError: standard output does not take it.
    """
    # In pieces: with PYTHONUNBUFFERED, one big write that the reader cuts short is no error to Python.
    for start in range(0, len(text), _PIECE):
        sys.stdout.write(text[start : start + _PIECE])
    sys.stdout.flush()


def _page(text: str) -> bool:
    """Whether the user's pager took the text."""
    if sys.platform == "win32":
        return False
    try:
        pager = subprocess.Popen(
            _PAGER, shell=True, stdin=subprocess.PIPE, encoding="utf-8", errors="backslashreplace"
        )
    except OSError:
        return False
    while True:
        try:
            pager.communicate(text)
            break
        except BrokenPipeError:  # left before the end
            break
        except KeyboardInterrupt:  # the pager's own business, as in git: it decides whether it ends
            continue
    return pager.wait() not in (126, 127)  # the shell did not find it: print instead


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Text | str]], *, right: Iterable[str] = ()
) -> Table:
    """Rows below headers; columns named in ``right`` are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    to_the_right = set(right)
    for index, header in enumerate(headers):
        made.add_column(
            header,
            justify="right" if header in to_the_right else "left",
            no_wrap=index == 0 or header in to_the_right,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text(cell) for cell in row])
    return made


def level_text(level: int, label: str) -> Text:
    """A level in its colour, in upper case."""
    return Text(f"{label.upper():<8}", LEVEL_STYLES.get(level, ""))


def status_text(label: str) -> Text:
    """A status in its colour."""
    return Text(label, STATUS_STYLES.get(label, ""))


def picture(title: str, *parts: RenderableType, width: int = 110) -> str:
    """The parts as they look on a terminal, as an SVG that loads nothing from elsewhere.

    Args:
        title: of the window.
        parts: below each other.
        width: columns of the terminal.
    """
    console = Console(
        record=True,
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        no_color=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    svg = console.export_svg(title=title, theme=DIMMED_MONOKAI, code_format=_SVG, unique_id="asynctrace")
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())
