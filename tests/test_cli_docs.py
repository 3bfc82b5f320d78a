"""The reference says everything about the command: each command, option and exit code."""

import re
from pathlib import Path

import pytest
import typer.main

from asynctrace.cli.app import COMMANDS
from asynctrace.cli.exits import Exit
from asynctrace.cli.options import make_app

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "cli.md").read_text("utf-8")
GROUP = typer.main.get_command(make_app(COMMANDS))


def section(name: str) -> str:
    """What the reference says below the command's heading."""
    found = re.search(rf"^## `asynctrace {name}\b.*?(?=^## |^\(asynctrace-|\Z)", PAGE, re.M | re.S)
    assert found is not None, f"the reference has no section about {name}"
    return found[0]


def options(name: str) -> set[str]:
    command = GROUP.commands[name]  # type: ignore[attr-defined]
    given = [*(parameter.opts + parameter.secondary_opts for parameter in command.params)]
    return {option for names in given for option in names if option.startswith("-")}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_reference_has_every_option_of(name: str) -> None:
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section(name)))

    assert options(name) - documented == set()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_reference_has_no_option_that_is_not_there_of(name: str) -> None:
    terms = re.findall(r"^`--?.*$", section(name), re.M)

    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(terms))) - options(name) == set()


def test_the_overview_links_every_command() -> None:
    assert [name for name in COMMANDS if not re.search(rf"^\| \[`asynctrace {name}\b", PAGE, re.M)] == []


def test_the_reference_has_every_exit_code() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)}

    assert documented == set(Exit)
