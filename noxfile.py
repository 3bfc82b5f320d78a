"""Every check the project has, by name: ``nox -l`` lists them.

Each session installs the hashed requirements into an environment of its own. ``nox --no-venv`` runs in the
environment that nox itself is in, which is what ``.ci/run`` does.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
BARE_CHECK = """
import asynctrace, pathlib, sys
home = pathlib.Path(asynctrace.__file__).parent
assert home.is_relative_to(sys.prefix), f"imported from {home}, not from the wheel"
assert (home / "py.typed").is_file(), "py.typed is not in the wheel"
missing = [name for name in asynctrace.__all__ if getattr(asynctrace, name, None) is None]
assert not missing, f"public names that cannot be imported: {missing}"
print(f"{len(asynctrace.__all__)} public names on Python {sys.version.split()[0]}")
"""

LONG_RUNS = "LONG_RUNS"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", "bare", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # the tests run on every Python present


def _put_pythons_on_path() -> None:
    """Lets nox find what .ci/pythons finds: pyenv's shims alone hide versions that are not selected."""
    found = subprocess.run(["sh", ".ci/pythons"], capture_output=True, text=True, check=True).stdout
    homes = [str(Path(line.split(maxsplit=1)[1]).parent) for line in found.splitlines()]
    os.environ["PATH"] = os.pathsep.join([*homes, os.environ["PATH"]])


def _install(session: nox.Session, requirements: str = "dev") -> None:
    if session.virtualenv.is_sandboxed:
        session.install("--require-hashes", "-r", f"requirements/{requirements}.txt")
        session.install("--no-deps", "--no-build-isolation", "--editable", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, on every Python present; 3.11 has the coverage gate."""
    _install(session)
    coverage = ["--cov"] if session.python == PYTHONS[0] else []
    session.run("python", "-m", "pytest", *coverage, *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """The tests that take chances, thousands of times: random schedules, killed writers. Up to an hour."""
    _install(session)
    # Tests that do more when they are given the time say so by the name of the variable.
    takers = sorted(path for path in Path("tests").glob("test_*.py") if LONG_RUNS in path.read_text("utf-8"))
    session.run("python", "-m", "pytest", *(session.posargs or map(str, takers)), env={LONG_RUNS: "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    _install(session)
    session.run("python", "-m", "ruff", "check")
    session.run("python", "-m", "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on the package."""
    _install(session)
    session.run("python", "-m", "mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    _install(session)
    build = ["-W", "--keep-going", "--fresh-env", "-b", "html", "docs", "docs/_build/html"]
    session.run("python", "-m", "sphinx", *build)


@nox.session
def bare(session: nox.Session) -> None:
    """The wheel, with no extra and no checkout, imports every public name."""
    _install(session)
    with tempfile.TemporaryDirectory() as scratch:
        wheels, venv = Path(scratch, "wheels"), Path(scratch, "venv")
        session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels))
        (wheel,) = wheels.glob("*.whl")
        session.run("python", "-m", "venv", str(venv))
        python = str(venv / "bin" / "python")
        session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
        with session.chdir(scratch):
            session.run(python, "-I", "-W", "error", "-c", BARE_CHECK, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, beside their anchors; arguments after ``--`` go to them."""
    session.install("--require-hashes", "-r", "requirements/bench.txt")
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Makes requirements/*.txt anew; ``-- --upgrade`` takes the newest versions."""
    session.install("uv>=0.9")
    # "fewest": one version of each package for all Pythons, so that every session runs the same tools.
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]]
    command += ["--fork-strategy", "fewest", "--generate-hashes", "--no-header", "--no-annotate"]
    for name, wanted in {
        "dev": ["--group", "dev", "--extra", "cli"],
        "bench": ["--group", "build", "--group", "bench"],
    }.items():
        target = f"requirements/{name}.txt"
        session.run(*command, *wanted, "--output-file", target, *session.posargs, "pyproject.toml")
        if "://" in Path(target).read_text():
            session.error(f"{target} names an address: it must hold names, versions and hashes only")


_put_pythons_on_path()
