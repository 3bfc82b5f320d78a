"""What must hold of the repository itself: its pins, its README's commands, and what no file may name."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = {"dev": (["dev"], ["cli"]), "bench": (["bench", "build"], [])}  # dependency groups, extras

# Written in pieces, so that this file does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:ro" + r"ot|wo" + r"rk|ho" + r"me/\w+)/")
PACKAGE_INDEX = re.compile(
    r":/" + r"/(?:[\w.-]+\.)?(?:py" + r"pi|pythonho" + r"sted)|-index" + r"-url|\bindex" + r"-url\b"
)


def forbidden(text: str) -> list[str]:
    """What in ``text`` no committed file may name: a machine's own paths, a package index's address."""
    return [match.group() for pattern in (MACHINE_PATH, PACKAGE_INDEX) for match in pattern.finditer(text)]


def committed_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_committed_file_names_a_machine_or_an_index() -> None:
    files = [path for path in committed_files() if path.is_file()]
    found = {
        path.relative_to(ROOT).as_posix(): forbidden(path.read_bytes().decode("utf-8", "replace"))
        for path in files
    }

    assert {name: matches for name, matches in found.items() if matches} == {}


@pytest.mark.parametrize(
    "text",
    [
        "cd /ro" + "ot/project",
        "path = '/wo" + "rk/main'",
        "file:///ho" + "me/someone/x",
        "--extra-index" + "-url=x",
        "https:/" + "/pypi.org/simple",
        "see https:/" + "/files.pythonhosted.org/packages",
    ],
)
def test_forbidden_finds(text: str) -> None:
    assert forbidden(text)


@pytest.mark.parametrize("text", ["./work/x", "network/root/x", "~/work/", "https://keepachangelog.com/"])
def test_forbidden_lets_pass(text: str) -> None:
    assert forbidden(text) == []


def grouped(group: str) -> Iterator[str]:
    """The requirements of a dependency group, its included groups resolved."""
    for entry in PYPROJECT["dependency-groups"][group]:
        yield from [entry] if isinstance(entry, str) else grouped(entry["include-group"])


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_pyproject(lock: str) -> None:
    groups, extras = LOCKS[lock]
    project = PYPROJECT["project"]
    wanted = list(project["dependencies"])
    wanted += [line for group in groups for line in grouped(group)]
    wanted += [line for extra in extras for line in project["optional-dependencies"][extra]]
    versions = pinned(lock)
    stale = [
        line
        for line in wanted
        if not (parsed := Requirement(line)).specifier.contains(
            versions.get(canonicalize_name(parsed.name), "0"), prereleases=True
        )
    ]

    assert stale == [], "run: nox -s lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_hashed_and_names_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    entries = re.split(r"(?m)^(?=\w)", text)[1:]

    assert "://" not in text
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_all_is_every_extra() -> None:
    extras = dict(PYPROJECT["project"]["optional-dependencies"])
    (everything,) = extras.pop("all")

    assert Requirement(everything).extras == set(extras)


def test_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()

    assert "sh .ci/venv && .venv/bin/python examples/stdlib_index.py" in readme
    assert "sh .ci/venv && .venv/bin/python -m pytest" in readme


def test_wheel_is_marked_as_typed() -> None:
    assert (ROOT / "asynctrace" / "py.typed").is_file()


def test_docs_list_every_extra_and_what_it_installs() -> None:
    page = (ROOT / "docs/reference/extras.md").read_text("utf-8")
    listed = dict(re.findall(r"(?m)^\| `([\w-]+)` \| (.+) \|$", page))
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert listed.keys() == extras.keys()
    for extra in extras.keys() - {"all"}:
        assert [name for line in extras[extra] if (name := Requirement(line).name) not in listed[extra]] == []
