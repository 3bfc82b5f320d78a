"""The rooms of the package and the direction of its imports, checked on the source.

    errors ← core ← ports ← { pipeline | sinks } ← settings ← trace ← { integrations | cli | viewer }

A room imports only from rooms to its left; rooms in braces do not know each other. ``testing`` may import
everything and is imported by nothing. The rest of the rules is in the tables below: whoever adds a module to
the package, a driver or a reader of the environment, adds it there.
"""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Which room a module of the top level is, or a package with all that is in it.
ROOMS = {
    "__init__": "façade",
    "__main__": "cli",
    "_version": "errors",  # like them, below everything
    "errors": "errors",
    "core": "core",
    "ports": "ports",
    "worker": "ports",  # beside them: below the pipeline and the sinks
    "lending": "ports",  # as the worker, which uses it
    "pipeline": "pipeline",
    "sinks": "sinks",
    "settings": "settings",
    "settings_table": "settings",
    "composition": "settings",
    "retention": "settings",
    "trace": "trace",
    "bound": "trace",
    "current": "trace",
    "extras": "trace",
    "outlet": "trace",
    "emitter": "trace",
    "handles": "trace",
    "journaling": "trace",
    "decorators": "trace",
    "executors": "trace",
    "reading": "trace",
    "pruning": "trace",
    "unclosed": "trace",
    "undelivered": "trace",
    "recovering": "trace",
    "verifying": "trace",
    "exposition": "trace",
    "api": "trace",
    "receipt": "trace",
    "span": "trace",
    "integrations": "integrations",
    "cli": "cli",
    "viewer": "viewer",
    "testing": "testing",
}

PUBLIC = {"façade", "errors", "ports"}  # what the outermost rooms see: the public API
LAYERS = [{"errors"}, {"core"}, {"ports"}, {"pipeline", "sinks"}, {"settings"}, {"trace"}]
MAY_IMPORT = {room: {room}.union(*LAYERS[:depth]) for depth, rooms in enumerate(LAYERS) for room in rooms} | {
    "façade": set(ROOMS.values()) - {"testing"},
    "integrations": {"integrations"} | PUBLIC,
    "cli": {"cli"} | PUBLIC,
    "viewer": {"viewer"} | PUBLIC,
    "testing": set(ROOMS.values()),
}

# Drivers: each is imported in one module only, so that one module knows what it raises and how it is missing.
DRIVERS = {
    "aiofiles",
    "aiosqlite",
    "asyncpg",
    "botocore",
    "elasticsearch",
    "httpx",
    "opentelemetry.proto",
    "opentelemetry.sdk",
    "psutil",
    "redis",
    "rich",
    "starlette",
    "structlog",
    "typer",
    "uvicorn",
    "websockets",
    "zstandard",
}
SINKS_ONLY = {"aiofiles", "aiosqlite", "asyncpg", "elasticsearch", "redis", "sqlite3"}
NOT_IN_CORE = {
    "aiofiles",
    "aiosqlite",
    "anyio",
    "asyncio",
    "concurrent",
    "http",
    "selectors",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "urllib",
}
ENVIRONMENT_READERS = {"settings", "testing"}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}


def package_sources() -> dict[str, str]:
    """The package's modules: ``core/record.py`` → its source."""
    package = ROOT / "asynctrace"
    return {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}


def room_of(path: str) -> str | None:
    return ROOMS.get(path.split("/")[0].removesuffix(".py"))


def room_of_import(name: str) -> str | None:
    """The room that ``name``, as imported, belongs to; None when it is not ours."""
    top, *rest = name.split(".")
    if top != "asynctrace":
        return None
    return ROOMS.get(rest[0], "façade") if rest else "façade"


def within(name: str, packages: set[str]) -> str | None:
    """The package that the dotted ``name`` is, or is in."""
    return next((package for package in packages if f"{name}.".startswith(f"{package}.")), None)


def imported(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever in the module, typing-only imports too."""
    package = ["asynctrace", *Path(path).parent.parts]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                outer = package[: len(package) - level + 1] if level else []
                origin = ".".join([*outer, *([module] if module else [])])
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def environment_reads(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                used = [f"{module}.{name}"]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                used = [f"{module}.{alias.name}" for alias in names]
            case _:
                continue
        if ENVIRONMENT.intersection(used):
            yield node.lineno


def wrong_import(path: str, room: str, name: str) -> str | None:
    """What is wrong with importing ``name`` in the module ``path`` of ``room``."""
    target = room_of_import(name)
    if target is not None and target not in MAY_IMPORT[room]:
        return f"{room} must not import {target} ({name})"
    if room == "core" and within(name, NOT_IN_CORE):
        return f"core does no I/O and knows no event loop ({name})"
    if room not in {"sinks", "testing"} and (driver := within(name, SINKS_ONLY)):
        return f"{driver} belongs in a sink"
    if room == target == "sinks":
        module, other = Path(path).parts[1].removesuffix(".py"), f"{name}...".split(".")[2]
        if module not in {other, "__init__", "registry"} and not other.startswith("_"):
            return f"a sink must not import another one ({name})"
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Every wrong arrow in a package, given as path → source."""
    found: list[str] = []
    homes: dict[str, set[str]] = defaultdict(set)
    for path, source in sorted(sources.items()):
        room = room_of(path)
        if room is None:
            found.append(f"{path}: in no room; give it one in ROOMS")
            continue
        tree = ast.parse(source)
        for line, name in imported(path, tree):
            if problem := wrong_import(path, room, name):
                found.append(f"{path}:{line}: {problem}")
            if room != "testing" and (driver := within(name, DRIVERS)):
                homes[driver].add(path)
        if room == "core":
            found += [
                f"{path}:{node.lineno}: core does no I/O (open)"
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
            ]
        if room not in ENVIRONMENT_READERS:
            found += [
                f"{path}:{line}: only settings reads the environment" for line in environment_reads(tree)
            ]
    found += [
        f"{driver} is imported in more than one module: {', '.join(sorted(paths))}"
        for driver, paths in homes.items()
        if len(paths) > 1
    ]
    return found


def test_imports_point_from_right_to_left() -> None:
    assert violations(package_sources()) == []


RIGHT = {
    "__init__.py": "from asynctrace.trace import Trace",
    "__main__.py": "from asynctrace.cli import main",
    "core/record.py": "from .level import Level\nfrom ..errors import ConfigurationError\nimport os, msgspec",
    "ports.py": "from asynctrace.core.batch import Batch",
    "pipeline/lane.py": "import asyncio\nfrom asynctrace.ports import Sink\nfrom .retry import Retry",
    "sinks/__init__.py": "from .sqlite import SqliteSink",
    "sinks/registry.py": "import importlib\nimportlib.import_module('asynctrace.sinks.sqlite')",
    "sinks/_rows.py": "from asynctrace.core import record",
    "sinks/sqlite.py": "import aiosqlite, sqlite3\nfrom . import _rows\nfrom ._rows import row",
    "settings.py": (
        "import os\nfrom asynctrace.pipeline import lane\nfrom asynctrace.sinks import registry\nos.environ"
    ),
    "trace.py": "from .span import Span\nfrom asynctrace import settings",
    "cli/show.py": "import asynctrace\nfrom asynctrace import Trace\nfrom asynctrace.cli.page import page",
    "testing/contract.py": "import sqlite3, aiosqlite\nfrom asynctrace.pipeline.lane import Lane",
}


def test_checker_accepts_what_the_rules_allow() -> None:
    assert violations(RIGHT) == []


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("core/x.py", "from asynctrace.ports import Sink", "core must not import ports"),
        ("core/x.py", "from ..ports import Sink", "core must not import ports"),
        ("core/x.py", "from .. import ports", "core must not import ports"),
        ("core/x.py", "import asynctrace", "core must not import façade"),
        ("core/x.py", "from asynctrace import Trace", "core must not import façade"),
        ("core/x.py", "import asyncio.events", "core does no I/O and knows no event loop"),
        ("core/x.py", "def f():\n    from asyncio import run", "core does no I/O and knows no event loop"),
        ("core/x.py", "open('x')", "core does no I/O (open)"),
        ("errors.py", "from asynctrace.core.level import Level", "errors must not import core"),
        ("pipeline/x.py", "from asynctrace.sinks.sqlite import S", "pipeline must not import sinks"),
        ("pipeline/x.py", "import sqlite3", "sqlite3 belongs in a sink"),
        ("pipeline/x.py", "from asynctrace import settings", "pipeline must not import settings"),
        (
            "pipeline/x.py",
            "from importlib import import_module\nimport_module('asynctrace.sinks.sqlite')",
            "pipeline must not import sinks",
        ),
        ("sinks/x.py", "import asynctrace.pipeline.lane", "sinks must not import pipeline"),
        ("sinks/x.py", "from asynctrace.sinks.sqlite import S", "a sink must not import another one"),
        ("sinks/x.py", "from . import sqlite", "a sink must not import another one"),
        ("sinks/x.py", "import asynctrace.sinks", "a sink must not import another one"),
        ("sinks/x.py", "from . import registry", "a sink must not import another one"),
        ("sinks/x.py", "if TYPE_CHECKING:\n    from asynctrace.trace import Trace", "must not import trace"),
        ("settings.py", "from asynctrace.trace import Trace", "settings must not import trace"),
        ("cli/x.py", "from asynctrace.core.record import Record", "cli must not import core"),
        ("viewer/x.py", "from asynctrace.cli import main", "viewer must not import cli"),
        ("__init__.py", "from asynctrace.testing import FakeClock", "façade must not import testing"),
        ("trace.py", "from .testing.clock import FakeClock", "trace must not import testing"),
        ("sinks/x.py", "import aiosqlite.core", "aiosqlite is imported in more than one module"),
        ("trace.py", "import os\nos.getenv('X')", "only settings reads the environment"),
        ("trace.py", "from os import environ", "only settings reads the environment"),
        ("novelty.py", "", "in no room"),
    ],
)
def test_checker_finds(path: str, source: str, problem: str) -> None:
    found = violations(RIGHT | {path: source})

    assert len(found) == 1
    assert problem in found[0]


IMPORT_PROBE = """
import json, os, sys, threading

read = []
class Recorder(type(os.environ)):
    def __getitem__(self, key):
        read.append(key)
        return super().__getitem__(key)
os.environ.__class__ = Recorder

import asynctrace

print(json.dumps({
    "threads": [thread.name for thread in threading.enumerate()],
    "modules": sorted(sys.modules),
    "read": [key for key in read if key.startswith("ASYNCTRACE_")],
}))
"""


def test_import_is_free_and_silent(tmp_path: Path) -> None:
    probe = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_PROBE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    seen = json.loads(probe.stdout)

    assert seen["threads"] == ["MainThread"]
    assert seen["read"] == []
    assert [name for name in seen["modules"] if within(name, DRIVERS | {"sqlite3"})] == []
    assert probe.stderr == ""
    assert list(tmp_path.iterdir()) == []
