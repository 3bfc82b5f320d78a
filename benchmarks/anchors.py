"""The other libraries on the caller's side, each making the same record; imported when they are asked for."""

from __future__ import annotations

import io
import logging
import logging.handlers
import queue
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

from benchmarks.harness import Case

CALL_SITE_FORMAT = "%(asctime)s %(levelname)s %(filename)s:%(lineno)d %(message)s"


def picologging(records: int) -> Case:
    """picologging to a text stream in memory, with time, level, file, line and the fields in the text."""
    import picologging

    stream = io.StringIO()
    handler = picologging.StreamHandler(stream)
    handler.setFormatter(picologging.Formatter(CALL_SITE_FORMAT))
    logger = picologging.getLogger("bench")
    logger.setLevel(picologging.INFO)
    logger.addHandler(handler)

    def clear() -> None:
        stream.seek(0)
        stream.truncate()

    return Case(_formatted(logger, records), clear)


def picologging_queue(records: int) -> Case:
    """picologging's QueueHandler; its records carry the call site too."""
    import picologging
    import picologging.handlers

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = picologging.getLogger("bench")
    logger.setLevel(picologging.INFO)
    logger.addHandler(picologging.handlers.QueueHandler(waiting))
    return Case(_formatted(logger, records), lambda: _empty(waiting))


def _formatted(logger: Any, records: int) -> Callable[[], float]:
    def run_once() -> float:
        start = thread_time_ns()
        for n in range(records):
            logger.info("order placed order_id=%s user=%s ms=%s", n, "u1", 1.5)
        return (thread_time_ns() - start) / records

    return run_once


def logging_queue(records: int) -> Case:
    """The standard library's QueueHandler with its fastest queue; the fields travel as ``extra``."""
    return _logging(queue.SimpleQueue(), records)


def logging_slow_queue(records: int) -> Case:
    """The same with the ``queue.Queue(-1)`` that its documentation uses."""
    return _logging(queue.Queue(-1), records)


def _logging(waiting: Any, records: int) -> Case:
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(waiting))

    def run_once() -> float:
        start = thread_time_ns()
        for n in range(records):
            logger.info("order placed", extra={"order_id": n, "user": "u1", "ms": 1.5})
        return (thread_time_ns() - start) / records

    return Case(run_once, lambda: _empty(waiting))


def structlog_disabled(calls: int) -> Case:
    """A call below the level of structlog's filtering bound logger; the logger itself, not the lazy proxy."""
    import structlog

    logger = structlog.wrap_logger(
        structlog.PrintLogger(io.StringIO()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    ).bind()

    def run_once() -> float:
        start = thread_time_ns()
        for n in range(calls):
            logger.debug("order placed", order_id=n, user="u1", ms=1.5)
        return (thread_time_ns() - start) / calls

    return Case(run_once)


def _empty(waiting: Any) -> None:
    while not waiting.empty():
        waiting.get()
