"""P8, P9: records to JSON lines from the first call to the closed file, in CPU time of the whole process.

Every library starts in an interpreter of its own, writes the same message, fields, time, level, call site,
run, trace and process to one file (or to a text and a JSON file for each of 200 interleaved runs), and is
closed; then the lines are counted, and one is searched for what it must hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from threading import get_ident
from typing import Any

import msgspec

from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, JobError, Values, check

_RUNS = 200
_CLOSE_TIMEOUT = 120.0  # seconds; a burst of 200,000 records needs more than the default on a slow machine
_FIELDS = ("order_id", "user", "ms")
_NEEDED = ("level", "filename", "lineno", "thread", "run_id", "trace_id", "span_id", "hostname")
_TEXT = "{datetime} ({process:5d}, {thread:5d}) {message}\n"
_MODULES = {
    "asynctrace": ("asynctrace.trace", "asynctrace.sinks.file", "asynctrace.sinks.jsonl"),
    "structlog": ("structlog", "orjson"),
    "eliot": ("eliot",),
}

Paths = Sequence[tuple[str, str | None]]
"""For each run, where its JSON lines go and where its text lines go, if there are any."""


def constants(number: int) -> dict[str, Any]:
    """What every record of a run says about the run and the process."""
    return {
        "run_id": f"run-{number:08d}",
        "cut_id": f"{number:08d}",
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "attempt": "0" * 20,
        "producer": "0" * 20,
        "memory_usage_mb": 51.2,
        "cpu_usage_percent": 99.5,
        "process": os.getpid(),
        "hostname": platform.node(),
        "ip_address": "127.0.0.1",
        "python_version": platform.python_version(),
        "package_version": "0.1.0",
    }


def jsonl(library: str, records: int, runs: int = 1, redact: str = "") -> Values:
    """Microseconds a record: CPU of the process, and wall clock; ``redact`` is asynctrace's setting."""
    directory = runs > 1
    paths: Paths = [
        (f"metadata-{run}.jsonl", f"stdout-{run}.txt" if directory else None) for run in range(runs)
    ]
    write: Callable[[int, Paths], None] = globals()[f"_{library}"]
    for module in _MODULES.get(library, ()):  # importing is P20's matter
        import_module(module)
    if redact:
        os.environ["ASYNCTRACE_REDACT"] = redact
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    write(records, paths)
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    _count(library, records, directory)
    name = _name(library, runs, redact)
    return {name: spent / records / 1000, f"{name}, wall": took / records / 1000}


def _name(library: str, runs: int, redact: str = "") -> str:
    return f"{library}{f' {redact}' if redact else ''}{f' in {runs} runs' if runs > 1 else ''}"


def _count(library: str, records: int, directory: bool) -> None:
    lines = texts = 0
    sample: dict[str, Any] = {}
    for path in Path().rglob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            if b'"order placed"' in line:
                lines += 1
                sample = sample or json.loads(line)
    for path in Path().rglob("*.txt"):
        texts += path.read_bytes().count(b"\n")
    check(f"{library}: lines of JSON", lines, records)
    if directory:
        check(f"{library}: lines of text", texts, records)
    missing = [key for key in _NEEDED if key not in sample] + [
        key for key in _FIELDS if key not in sample.get("metadata", sample)
    ]
    if missing:
        raise JobError(f"{library}: a line has no {', '.join(missing)}: {sample}")


# -- asynctrace ----------------------------------------------------------------------------------------------


def _asynctrace(records: int, paths: Paths) -> None:
    asyncio.run(_trace(records, len(paths)))


async def _trace(records: int, runs: int) -> None:
    from asynctrace import Trace

    sink = "file:./logs" if runs > 1 else "file:./one.jsonl"
    traces = [Trace(f"run-{run:08d}", sinks=[sink]) for run in range(runs)]
    for trace in traces:
        await asyncio.create_task(trace.__aenter__())  # in a context of its own: no child of the one before
    for n in range(records):
        traces[n % runs].info("order placed", order_id=n, user="u1", ms=1.5)
    for trace in traces:
        await trace.aclose(_CLOSE_TIMEOUT)


# -- the hand-written floor ----------------------------------------------------------------------------------


class _Line(msgspec.Struct, gc=False):
    """The columns that asynctrace writes for such a record, in its order."""

    seq: int
    producer: str
    kind: str
    datetime: str
    level: str
    mode: str
    message: str
    filename: str
    lineno: int
    thread: int
    span_id: str
    memory_usage_mb: float
    cpu_usage_percent: float
    run_id: str
    attempt: str
    cut_id: str
    trace_id: str
    process: int
    hostname: str
    ip_address: str
    python_version: str
    package_version: str
    metadata: dict[str, Any]


def _floor(records: int, paths: Paths) -> None:
    """What somebody writes who needs just these lines: a Struct a record, buffered files, all in line."""
    encode = msgspec.json.Encoder().encode
    outputs = [_FloorFiles(number, *pair) for number, pair in enumerate(paths)]
    second, prefix, runs = 0, "", len(paths)
    for n in range(records):
        out = outputs[n % runs]
        own = out.own
        now = time.time_ns()
        if now // 1_000_000_000 != second:
            second = now // 1_000_000_000
            prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
        moment = f"{prefix}.{now // 1000 % 1_000_000:06d}"
        thread = get_ident()
        line = _Line(
            n,
            own["producer"],
            "log",
            moment,
            "info",
            "stdout",
            "order placed",
            __file__,
            sys._getframe().f_lineno,
            thread,
            own["span_id"],
            own["memory_usage_mb"],
            own["cpu_usage_percent"],
            own["run_id"],
            own["attempt"],
            own["cut_id"],
            own["trace_id"],
            own["process"],
            own["hostname"],
            own["ip_address"],
            own["python_version"],
            own["package_version"],
            {"order_id": n, "user": "u1", "ms": 1.5},
        )
        out.lines.write(encode(line) + b"\n")
        if out.text is not None:
            out.text.write(f"{moment} ({own['process']:5d}, {thread:5d}) order placed\n")
    for out in outputs:
        out.close()


class _FloorFiles:
    """The two buffered files of one run."""

    def __init__(self, number: int, lines: str, text: str | None) -> None:
        self.own = constants(number)
        self.lines = open(lines, "ab", buffering=65_536)  # noqa: SIM115
        self.text = open(text, "a", buffering=65_536) if text else None  # noqa: SIM115

    def close(self) -> None:
        self.lines.close()
        if self.text is not None:
            self.text.close()


# -- the standard library ------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """The columns as the usual recipe makes them: a dict through ``json.dumps``."""

    def __init__(self, own: dict[str, Any]) -> None:
        super().__init__()
        self._own = own

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        line = {
            "kind": "log",
            "datetime": moment,
            "level": record.levelname.lower(),
            "mode": "stdout",
            "message": record.getMessage(),
            "filename": record.filename if hasattr(record, "filename") else "",
            "lineno": record.lineno,
            "thread": record.thread,
            **self._own,
            "metadata": {"order_id": record.order_id, "user": record.user, "ms": record.ms},  # type: ignore[attr-defined]
        }
        return json.dumps(line)


def _logging(records: int, paths: Paths) -> None:
    """A logger a run with a FileHandler for JSON and, for a directory, one for text."""
    loggers = []
    for number, (lines, text) in enumerate(paths):
        logger = logging.getLogger(f"bench.{number}")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        handler = logging.FileHandler(lines)
        handler.setFormatter(JsonFormatter(constants(number)))
        logger.addHandler(handler)
        if text:
            plain = logging.FileHandler(text)
            plain.setFormatter(logging.Formatter("%(asctime)s (%(process)5d, %(thread)5d) %(message)s"))
            logger.addHandler(plain)
        loggers.append(logger)
    runs = len(loggers)
    for n in range(records):
        loggers[n % runs].info("order placed", extra={"order_id": n, "user": "u1", "ms": 1.5})
    logging.shutdown()


# -- structlog with orjson -----------------------------------------------------------------------------------


def _structlog(records: int, paths: Paths) -> None:
    """The set-up that structlog's performance page recommends, with time, level and call site."""
    import orjson
    import structlog
    from structlog.processors import CallsiteParameter, CallsiteParameterAdder, JSONRenderer, TimeStamper

    site = CallsiteParameterAdder(
        {CallsiteParameter.FILENAME, CallsiteParameter.LINENO, CallsiteParameter.THREAD}
    )
    stamp = TimeStamper(fmt="iso", utc=True, key="datetime")
    files, loggers = [], []
    for number, (lines, text) in enumerate(paths):
        output = open(lines, "ab")  # noqa: SIM115
        files.append(output)
        processors: list[Any] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            site,
        ]
        if text:
            plain = open(text, "ab")  # noqa: SIM115
            files.append(plain)
            processors.append(_TextToo(plain))
        processors.append(JSONRenderer(serializer=orjson.dumps))
        logger = structlog.wrap_logger(
            structlog.BytesLogger(output),
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        loggers.append(logger.bind(**constants(number)))
    runs = len(loggers)
    for n in range(records):
        loggers[n % runs].info("order placed", order_id=n, user="u1", ms=1.5)
    for output in files:
        output.close()


class _TextToo:
    """Writes the line for people beside the line of JSON."""

    def __init__(self, output: Any) -> None:
        self._output = output

    def __call__(self, logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
        self._output.write(_TEXT.format(message=event["event"], **event).encode())
        self._output.flush()  # as BytesLogger does with its own line
        return event


# -- eliot ---------------------------------------------------------------------------------------------------


def _eliot(records: int, paths: Paths) -> None:
    """``log_message`` inside an action; run, process and call site, which eliot does not know, are fields."""
    import eliot

    output = _EliotFiles(paths)
    eliot.add_destinations(output)
    own = [constants(number) for number in range(len(paths))]
    runs = len(own)
    with eliot.start_action(action_type="checkout"):
        for n in range(records):
            eliot.log_message(
                "order placed",
                order_id=n,
                user="u1",
                ms=1.5,
                level="info",
                filename=__file__,
                lineno=sys._getframe().f_lineno,
                thread=get_ident(),
                **own[n % runs],
            )
    output.close()


class _EliotFiles:
    """eliot's own FileDestination for each run, and the text beside it for a directory."""

    def __init__(self, paths: Paths) -> None:
        import eliot

        self._files = {}
        self._opened: list[Any] = []
        for number, (lines, text) in enumerate(paths):
            output = open(lines, "ab")  # noqa: SIM115
            plain = open(text, "ab") if text else None  # noqa: SIM115
            self._opened += [file for file in (output, plain) if file is not None]
            self._files[f"run-{number:08d}"] = (eliot.FileDestination(file=output), plain)

    def __call__(self, message: dict[str, Any]) -> None:
        run_id = message.get("run_id")
        if run_id is None:  # the action's own start and end
            return
        destination, plain = self._files[run_id]
        destination(message)
        if plain is not None:
            moment = datetime.fromtimestamp(message["timestamp"], UTC)
            line = _TEXT.format(datetime=moment, message=message["message_type"], **message)
            plain.write(line.encode())
            plain.flush()

    def close(self) -> None:
        for file in self._opened:
            file.close()


def _jobs(records: int, runs: int) -> tuple[Job, ...]:
    anchors = [{"library": library} for library in ("floor", "structlog", "eliot", "logging")]
    ours = [{"library": "asynctrace", "redact": mode} for mode in _MODES]
    size, quick = {"records": records, "runs": runs}, {"records": records // 8}
    return tuple(Job("jsonl:jsonl", {**who, **size}, quick) for who in (*ours, *anchors))


def _figures(runs: int, mode: str) -> tuple[Figure, ...]:
    where = f"{'one file' if runs == 1 else f'{runs} runs'}, redact={mode}"
    ours = _name("asynctrace", runs, mode)
    goals = _GOALS if mode == _MODES[0] else {}

    def figure(row: str, what: str, anchor: str, clock: str = "") -> Figure:
        over = _name(anchor, runs) + clock
        return Figure(row, f"{what}, {where}", over, ours + clock, None if clock else goals.get(anchor))

    return (
        figure("P8", "CPU to JSONL: eliot ÷ ours", "eliot"),
        figure("P8", "CPU to JSONL: logging FileHandler ÷ ours", "logging"),
        figure("P9", "JSONL: records a CPU second, ours ÷ floor", "floor"),
        figure("P9", "JSONL: the same by the wall clock", "floor", ", wall"),
        figure("P9", "JSONL: ours ÷ structlog+orjson", "structlog"),
        figure("P9", "JSONL: the same by the wall clock", "structlog", ", wall"),
    )


_MODES = ("keys", "full")  # the goals are for the first one; the second one is the default
_GOALS = {"eliot": 3.0, "logging": 10.0, "floor": 0.6, "structlog": 5.0}
GROUPS = tuple(
    Group(
        figures=tuple(figure for mode in _MODES for figure in _figures(runs, mode)),
        jobs=_jobs(records, runs),
        rounds=(3, 2),
        unit="µs a record",
        needs=("structlog", "eliot", "orjson"),
    )
    for records, runs in ((200_000, 1), (100_000, _RUNS))
)
