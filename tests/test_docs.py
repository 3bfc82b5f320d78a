"""The examples of README.md, docs/ and the docstrings run, and the commands they show exist.

In Markdown a fence tagged ``python`` is a program: the blocks of one page run in their order, as one script,
in an empty directory, with warnings as errors. What is not a program is tagged ``text``. Lines that start
with ``$`` in a ``console`` fence, and all lines of a ``bash`` fence, are commands.
"""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.glob("asynctrace/**/*.py")
    if path.name != "__main__.py"
)
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
SECONDS = 50  # for one page or command, below the suite's own limit for one test


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of code, counted from 1."""

    info: str
    line: int
    code: str


def blocks(markdown: str) -> list[Block]:
    found: list[Block] = []
    opened: re.Match[str] | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None:
            opened, first, code = fence, number + 1, []
        elif fence and fence["ticks"].startswith(opened["ticks"]) and not fence["info"].strip():
            found.append(Block(opened["info"].strip(), first, textwrap.dedent("\n".join(code))))
            opened = None
        else:
            code.append(line)
    assert opened is None, f"a fence is not closed: {opened}"
    return found


def script(markdown: str) -> str:
    """The page's Python blocks as one program in which each line has the number it has on the page."""
    lines: list[str] = []
    for block in blocks(markdown):
        if block.info == "python":
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.code.splitlines()
    return "\n".join(lines)


def commands(markdown: str) -> Iterator[list[str]]:
    """The words of each shell command on the page; a pipeline is several commands."""
    for block in blocks(markdown):
        lines = block.code.replace("\\\n", " ").splitlines()
        if block.info == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif block.info != "bash":
            continue
        for line in lines:
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.commenters = "#"
            command: list[str] = []
            for word in words:
                if set(word) <= set(";&|()"):
                    yield command
                    command = []
                elif command or not re.fullmatch(r"\w+=.*", word):  # VARIABLE=value before a command
                    command.append(word)
            yield command


def asynctrace_arguments(command: list[str]) -> list[str] | None:
    """What the command gives to ``asynctrace``; None when it runs something else."""
    match command:
        case [program, *arguments] if program.split("/")[-1] == "asynctrace":
            return arguments
        case [python, "-m", "asynctrace", *arguments] if python.split("/")[-1].startswith("python"):
            return arguments
    return None


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTRACE_")}


@cache
def has_subcommand(name: str) -> bool:
    """Whether ``asynctrace NAME --help`` succeeds; the empty name asks for the command itself."""
    command = [sys.executable, "-m", "asynctrace", *filter(None, [name]), "--help"]
    return (
        subprocess.run(command, capture_output=True, timeout=SECONDS, env=clean_environment()).returncode == 0
    )


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def has_python(page: Path) -> bool:
    return any(block.info == "python" for block in blocks(page.read_text("utf-8")))


@pytest.mark.parametrize("page", [*filter(has_python, PAGES)], ids=name_of)
def test_python_of_page_runs(page: Path, tmp_path: Path) -> None:
    program = tmp_path / f"{page.stem.replace('-', '_')}.py"
    program.write_text(script(page.read_text("utf-8")), "utf-8")
    work = tmp_path / "work"
    work.mkdir()

    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=work,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert done.returncode == 0, f"{name_of(page)} (line numbers are the page's)\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_of_page_is_marked_as_such(page: Path) -> None:
    """No fence escapes: ``python`` alone is a program, and nothing is Python but not run."""
    tags = {block.info for block in blocks(page.read_text("utf-8"))}

    assert {tag for tag in tags if re.search(r"py(thon|con)?3?\b", tag) and tag != "python"} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_page_exist(page: Path) -> None:
    shown = [asynctrace_arguments(command) for command in commands(page.read_text("utf-8"))]
    names = {
        next((word for word in arguments if not word.startswith("-")), "")
        for arguments in shown
        if arguments is not None
    }

    assert {name for name in names if not has_subcommand(name)} == set()


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").startswith("asynctrace"):
            raise
        pytest.skip(f"needs an extra that is not installed: {error.name}")
    monkeypatch.chdir(tmp_path)

    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.REPORT_ONLY_FIRST_FAILURE)

    assert outcome.failed == 0, "the report is in the captured output"


PAGE = """\
# A page

```python
import sys
```

1. In a list:

   ```python
   if sys:
       raise SystemExit(3)
   ```

````text
```python
never run
```
````

```console
$ LEVEL=debug asynctrace show run-1 | head   # not a command: asynctrace nothing
asynctrace output, not a command
$ .venv/bin/asynctrace \\
    --version; python3 -m asynctrace tail
```

```bash
cd x && asynctrace runs --json
```
"""


def test_script_keeps_the_line_numbers_of_the_page() -> None:
    lines = script(PAGE).splitlines()

    assert {number: line for number, line in enumerate(lines, 1) if line} == {
        4: "import sys",
        10: "if sys:",
        11: "    raise SystemExit(3)",
    }


def test_commands_are_found() -> None:
    found = [asynctrace_arguments(command) for command in commands(PAGE)]

    assert [arguments for arguments in found if arguments is not None] == [
        ["show", "run-1"],
        ["--version"],
        ["tail"],
        ["runs", "--json"],
    ]


def test_unclosed_fence_is_an_error() -> None:
    with pytest.raises(AssertionError, match="not closed"):
        blocks("```python\nx = 1\n")
