"""Makes docs/images/show.svg, the picture in README: what ``asynctrace show`` prints of a real demo.

Run it from the root of a checkout: ``python docs/make_picture.py``.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "show.svg"
SHORT = ["--level", "info", "--limit", "2"]  # a picture is no pager
SEED = "4"  # the declined payment and the second try are near each other


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTRACE_")}
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for arguments in (["demo", "--seed", SEED], ["show", "latest", *SHORT, "--svg", str(PICTURE)]):
            subprocess.run(
                [sys.executable, "-m", "asynctrace", *arguments], cwd=scratch, env=environment, check=True
            )
    print(PICTURE)


if __name__ == "__main__":
    main()
