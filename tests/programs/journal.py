"""Programs that are killed, or end otherwise, while they record with a journal.

Usage: python journal.py SCENARIO STORE_URL [WITNESS]
"""

import ctypes
import importlib
import mmap
import os
import signal
import sys
import threading

import asynctrace
from asynctrace import LaneOptions, Trace

scenario, store = sys.argv[1], sys.argv[2]

SECONDS = 60.0


def trace(run_id="r", **options):
    return Trace(run_id, **{"sinks": [store], "durability": "process", **options})


def die(how):
    """End at once, in one of the ways in which no exit hook runs."""
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        ctypes.string_at(0)


def rich(how=None):
    """One of everything; the end depends on the argument, and none is a clean one."""
    handle = trace(name="the run", fields={"user_id": "u1", "tenant": "acme"})
    handle.info("plain")
    handle.info("with fields", rows=120, ratio=0.5, names=["a", "b"], tags="x", nothing=None, data=b"\0\1")
    handle.bind(job_name="nightly").warning("bound", of="%s")
    handle.error("formatted %s %d", "text", 7)
    with handle.span("outer", table="orders") as outer:
        outer.info("in outer")
        with handle.span("inner"):
            handle.debug("in inner \u2603")
            thread = threading.Thread(target=handle.info, args=("in a thread",), name="other")
            thread.start()
            thread.join()
    with asynctrace.Trace("child", sinks=[store], durability="process") as child:
        child.info("of the child")
    try:
        with handle.span("failing"):
            raise LookupError("no such thing") from ValueError("because")
    except LookupError:
        handle.exception("caught")
    handle.info(
        "surrogate \udce9",
        odd=float("nan"),
        big=10**30,
        when={
            1: {
                2,
            }
        },
    )
    if how is not None:
        die(how)
    handle.close()


def secrets():
    handle = trace(fields={"password": "bound-hunter2"}, name="run token=name-hunter2")
    handle.info("harmless", rows=1)
    handle.info("login with password=message-hunter2")
    handle.info("fields", api_key="field-hunter2", nested={"secret": "nested-hunter2"}, name="Authorization")
    handle.info("a pair", name="Authorization", value="pair-hunter2")
    handle.info("in a text", note="postgres://u:url-hunter2@h/db", blob=b"password=bytes-hunter2")
    handle.info("formatted %s", "token=args-hunter2")
    with handle.span("span secret=span-hunter2", access_token="start-hunter2"):
        handle.info("inside")
    try:
        raise LookupError("password=error-hunter2")
    except LookupError:
        handle.exception("caught")
    die("kill")


def nursery():
    """Have a child record for each line that comes, and say its number; starting an interpreter takes far longer."""
    # What is imported at the first use, likewise: the children are to die while they recover and record.
    for name in asynctrace.__all__:
        getattr(asynctrace, name)
    importlib.import_module("asynctrace.journaling")
    importlib.import_module("asynctrace.sinks.sqlite")
    for line in sys.stdin:
        path, number, threads, flushing = line.split()
        child = os.fork()
        if child == 0:
            killer(path, number, int(threads), int(flushing))
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)


def killer(path, number, threads, flushing):
    """Record from several threads until killed; the witness says what each call had returned for."""
    with open(path, "r+b") as file:
        witness = mmap.mmap(file.fileno(), 0)
    handle = trace(f"run-{number}")

    def work(thread):
        place = 8 * thread
        count = 0
        while True:
            count += 1
            if count % 50 == 0:
                with handle.span("work") as span:
                    span.info("m", thread=thread, count=count)
            else:
                handle.info("m", thread=thread, count=count)
            witness[place : place + 8] = count.to_bytes(8, "little")
            if flushing and count % flushing == 0:
                handle.flush()

    for thread in range(1, threads):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    work(0)


def levels():
    """A record of each level, and killed."""
    handle = trace()
    for level in ("debug", "info", "warning", "error", "critical"):
        handle.log(level, level)
    die("kill")


def living():
    """Record, and wait to be told to end."""
    handle = trace()
    for count in range(100):
        handle.info("m", count=count)
    print("ready", flush=True)
    sys.stdin.readline()
    die("kill")


def forked():
    """Parent and child record before and after the fork; both are killed."""
    handle = trace()
    for count in range(50):
        handle.info("before", count=count)
    child = os.fork()
    for count in range(100):
        handle.info("in the child" if child == 0 else "in the parent", count=count)
    if child:
        os.waitpid(child, 0)
    die("kill")


def forked_with_runs():
    """The child records in the run that it inherited and in runs of its own, and is killed at once."""
    handle = trace("inherited", fields={"user_id": "parent"})
    handle.info("in inherited")
    handle.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        handle.close()
        return
    handle.info("in inherited")
    own = [trace(f"own-{number}", fields={"user_id": f"child-{number}"}) for number in range(3)]
    for each in [*own, handle]:
        each.info(f"in {each.run_id}")
    die("kill")


def outer_inside_inner():
    """An outer run records inside the span of an inner one, which goes to another store."""
    outer = trace("outer")
    with outer.span("around"), trace("inner", sinks=[f"{store}.inner"]) as inner, inner.span("within"):
        outer.info("in the outer run")
        with outer.span("below"):
            die("kill")


def bound_at_the_end_of_a_segment():
    """What a record refers to finds no room in the segment any more, the record itself would."""
    handle = trace(sinks=[(store, LaneOptions(linger=SECONDS, trigger=1_000_000))])
    for count in range(60):
        handle.bind(much=f"{count}" + "x" * 200_000).info("bound", count=count)
    die("kill")


def parent_lives():
    """The child is killed; the parent goes on and ends well."""
    handle = trace()
    handle.info("before")
    child = os.fork()
    for count in range(100):
        handle.info("in the child" if child == 0 else "in the parent", count=count)
    if child == 0:
        die("kill")
    os.waitpid(child, 0)
    handle.info("after")
    handle.close()


if __name__ == "__main__":
    if scenario.startswith("rich"):
        rich(scenario.partition("-")[2] or None)
    else:
        globals()[scenario]()
