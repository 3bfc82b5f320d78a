"""Index a source tree and trace every step: one run, a span a file, real errors, two stores at once.

    python examples/stdlib_index.py                    # the standard library of the running Python
    python examples/stdlib_index.py src --out /tmp/idx

Files are read and parsed in a thread pool by many tasks at once. What cannot be decoded or parsed is a real error
with its stack. At the end the run is read back from the stores and the ledger is checked: every record that was
emitted is in SQLite and in the log directory.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from asynctrace import ContextExecutor, Kind, StoredRun, Trace, afind_trace, current_trace

CONCURRENT_FILES = 64
LONG_FUNCTION = 150  # lines
SLOWEST = 5


@dataclass
class Index:
    """What was found so far."""

    done: int = 0
    failed: int = 0
    definitions: Counter[str] = field(default_factory=Counter)


def sources(root: Path) -> list[Path]:
    """All Python files below the root, installed packages aside."""
    return sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)


def examine(path: Path) -> tuple[int, Counter[str], list[Function]]:
    """Read, parse and count one file; runs in the pool, in a span inside the one that submitted it."""
    trace = current_trace()
    with trace.span("parse", path=str(path)) as span, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old file's invalid escape is not our business
        with tokenize.open(path) as file:  # honours the coding cookie, as the compiler does
            text = file.read()
        span.debug("read", characters=len(text))
        tree = ast.parse(text, filename=str(path))
    nodes = [node for node in ast.walk(tree) if isinstance(node, DEFINITIONS)]
    functions = [node for node in nodes if not isinstance(node, ast.ClassDef)]
    long = [node for node in functions if (node.end_lineno or node.lineno) - node.lineno >= LONG_FUNCTION]
    return text.count("\n"), Counter(type(node).__name__ for node in nodes), long


async def index_file(path: Path, root: Path, index: Index, trace: Trace, pool: ContextExecutor) -> None:
    """One file: its span, what it defines, and what stands out."""
    name = str(path.relative_to(root))
    try:
        async with trace.span("index file", path=name) as span:
            lines, found, long = await asyncio.get_running_loop().run_in_executor(pool, examine, path)
            for function in long:
                length = (function.end_lineno or function.lineno) - function.lineno
                await span.awarning("long function", function=function.name, at=function.lineno, lines=length)
            await span.ainfo("indexed", lines=lines, **found)
            index.definitions += found
    except (SyntaxError, ValueError, OSError) as error:
        index.failed += 1
        await trace.aexception("not indexed: %s", name, path=name, error_code=type(error).__name__)
    finally:
        index.done += 1


Function = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


async def show_progress(index: Index, total: int) -> None:
    """A bar on a terminal, redrawn ten times a second."""
    while True:
        width = 40
        filled = width * index.done // max(total, 1)
        bar = "█" * filled + "░" * (width - filled)
        print(
            f"\r{bar} {index.done}/{total} files, {index.failed} errors", end="", file=sys.stderr, flush=True
        )
        await asyncio.sleep(0.1)


async def index_tree(root: Path, stores: list[str], jobs: int) -> tuple[str, int]:
    """Index everything in one run; its id, and how many records it emitted."""
    paths = sources(root)
    index = Index()
    limit = asyncio.Semaphore(CONCURRENT_FILES)

    async with Trace(name="index source tree", sinks=stores, fields={"root": str(root)}) as trace:
        bar = asyncio.create_task(show_progress(index, len(paths))) if sys.stderr.isatty() else None

        async def one(path: Path) -> None:
            async with limit:
                await index_file(path, root, index, trace, pool)

        with ContextExecutor(ThreadPoolExecutor(jobs)) as pool:
            async with asyncio.TaskGroup() as tasks:
                for path in paths:
                    tasks.create_task(one(path))
        await trace.ainfo("tree indexed", files=len(paths), failed=index.failed, **index.definitions)
        if bar is not None:
            bar.cancel()
            print("\r\x1b[K", end="", file=sys.stderr)
        pipeline = trace.pipeline
    return trace.run_id, pipeline.stats().emitted


def print_summary(run: StoredRun, store: str) -> None:
    """The run as the store tells it."""
    summary = run.summary
    files = [node for root in run.attempts() for node in root.children if node.name == "index file"]
    parses = [node for file in files for node in file.children if node.name == "parse"]
    errors = Counter(
        str(record.fields["error_code"]) for record in run.records if record.exception is not None
    )
    duration = (summary.duration_ms or 0.0) / 1000
    print(f"run      {run.run_id} ({summary.status.label}, {duration:.1f} s) in {store}")
    print(f"files    {len(files):,}")
    print(f"records  {summary.records:,}, {summary.warnings:,} of them warnings")
    print(
        f"errors   {summary.errors:,}: {', '.join(f'{n} {name}' for name, n in errors.most_common()) or 'none'}"
    )
    print("slowest  spans")
    for node in sorted(parses, key=lambda node: node.duration_ms or 0.0, reverse=True)[:SLOWEST]:
        path = node.start.fields["path"] if node.start is not None else "?"
        print(f"  {node.duration_ms or 0.0:8.1f} ms  {node.name} {path}")


async def main() -> int:
    parser = argparse.ArgumentParser(description="Index a source tree and trace every step.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--out", type=Path, default=Path("stdlib-index"), help="folder for both stores")
    parser.add_argument("--jobs", type=int, default=4, help="threads that parse")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    database, logs = f"sqlite:{options.out}/traces.db", f"file:{options.out}/logs"
    run_id, emitted = await index_tree(options.root.resolve(), [database, logs], options.jobs)

    stored = {}
    for store in (database, logs):
        run = await afind_trace(run_id, store)
        stored[store] = len(run.entries)
        if store == database:
            print_summary(run, store)
            print(f"         {sum(entry.kind is Kind.SPAN_START for entry in run.entries):,} spans started")
    for store, count in stored.items():
        verdict = "=" if count == emitted else "≠"
        print(f"ledger   emitted {emitted:,} {verdict} stored {count:,} in {store}")
    print(f"look     asynctrace show {run_id} --store {database}")
    return 0 if all(count == emitted for count in stored.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
