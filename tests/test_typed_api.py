"""The public API has the types that ``tests/typed_api.py`` tells, for a user who checks strictly."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed here; `nox -s types` has it")

ROOT = Path(__file__).parents[1]


def test_the_types_of_the_public_api(tmp_path: Path) -> None:
    # A cache of its own: suites run beside each other, and beside mypy on the package.
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "tests/typed_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
