"""Programs that end in all the ways a program can end; each records what its test looks for in the store.

Usage: python exits.py SCENARIO STORE_URL
"""

import asyncio
import atexit
import os
import signal
import sys
import threading
import time

import asynctrace

scenario, store = sys.argv[1], sys.argv[2]


def no_loop():
    trace = asynctrace.Trace("r", sinks=[store])
    for i in range(100):
        trace.info(f"m{i}")


def with_block():
    with asynctrace.Trace("r", sinks=[store]) as trace:
        trace.info("m")


def atexit_before():
    atexit.register(lambda: trace.info("from atexit, registered before"))
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("m")


def atexit_after():
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("m")
    atexit.register(lambda: trace.info("from atexit, registered after"))


def atexit_only():
    trace = asynctrace.Trace("r", sinks=[store])
    atexit.register(lambda: trace.info("from atexit, never before"))


def after_close():
    with asynctrace.Trace("r", sinks=[store]) as trace:
        trace.info("m")
    trace.info("after close")


def sys_exit():
    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            await trace.ainfo("m")
            sys.exit(3)

    asyncio.run(main())


def sys_exit_in_sibling():
    async def sibling():
        sys.exit(3)

    async def main():
        async with asynctrace.Trace("r", sinks=[store], fields={"close_timeout": 1}) as trace:
            for i in range(1000):
                trace.info(f"m{i}")
            task = asyncio.create_task(sibling())
            try:
                await asyncio.sleep(30)
            finally:
                trace.info("finally")
                await trace.aflush()
                del task

    asyncio.run(main())


def unhandled():
    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        async with trace:
            await trace.ainfo("m")
            raise RuntimeError("nobody handles this")

    asyncio.run(main())


def siblings_in_finally():
    """The loop ends while sibling tasks are alive; nobody closes the trace."""

    async def sibling(trace, i):
        try:
            await asyncio.sleep(30)
        finally:
            trace.info(f"finally {i}")
            await asyncio.sleep(0.01)
            await trace.ainfo(f"later {i}")
            await trace.aflush()
            trace.info(f"last {i}")

    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        tasks = [asyncio.create_task(sibling(trace, i)) for i in range(20)]
        await asyncio.sleep(0.01)
        trace.info("main")
        return tasks

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 3, "the end of the loop waited for a deadline"


def cancel_all():
    """The usual recipe of a graceful shutdown cancels our tasks too, and waits for them."""

    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        trace.info("before")
        await trace.aflush()
        started = time.monotonic()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - started < 3, "the recipe waited for us, and we for the recipe"
        trace.info("after")
        await trace.aclose()

    asyncio.run(main())


def bare_loop_closed():
    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        for i in range(100):
            trace.info(f"m{i}")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


def bare_loop_left_open():
    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        for i in range(100):
            trace.info(f"m{i}")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    sys.modules["keep"] = loop


def other_loop_closes():
    """The home stands still for good; another loop awaits the closing."""

    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        trace.info("m")
        return trace

    async def end(trace):
        trace.info("on another loop")
        await trace.aclose()

    loop = asyncio.new_event_loop()
    trace = loop.run_until_complete(main())
    started = time.monotonic()
    asyncio.run(end(trace))
    assert time.monotonic() - started < 3
    loop.close()


def async_generator():
    async def numbers(trace):
        try:
            yield 1
            yield 2
        finally:
            trace.info("generator's finally")

    kept = []

    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        generator = numbers(trace)
        kept.append(generator)
        await generator.__anext__()
        trace.info("m")

    asyncio.run(main())


def two_runs():
    async def main(i):
        async with asynctrace.Trace(f"r{i}", sinks=[store]) as trace:
            await trace.ainfo(f"m{i}")

    asyncio.run(main(1))
    asyncio.run(main(2))


def two_runs_default():
    asynctrace.configure(store)

    async def main(i):
        trace = asynctrace.get_trace(f"r{i}")
        await trace.ainfo(f"m{i}")
        await asynctrace.aflush()

    asyncio.run(main(1))
    asyncio.run(main(2))


def two_runs_global():
    trace = asynctrace.Trace("r", sinks=[store])

    async def main(i):
        await trace.ainfo(f"m{i}")

    asyncio.run(main(1))
    asyncio.run(main(2))


def interrupted():
    """Ctrl-C in the middle of a run under asyncio.run, with a counter of what had been emitted before it."""

    async def worker(trace, name):
        i = 0
        while True:
            await trace.ainfo(f"{name} {i}")
            counts[name] = i = i + 1
            await asyncio.sleep(0)

    counts = {}

    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace, asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(worker(trace, name))
            asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGINT)

    try:
        asyncio.run(main())
    finally:
        print(counts)


def interrupted_bare():
    """Ctrl-C on a bare loop, where it strikes anywhere, in our own code too."""
    counts = {"a": 0}

    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        await trace.__aenter__()
        while True:
            for _ in range(500):
                trace.info(f"a {counts['a']}")
                counts["a"] += 1
            await asyncio.sleep(0)

    threading.Thread(target=lambda: (time.sleep(0.4), os.kill(os.getpid(), signal.SIGINT))).start()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        print({"a": counts["a"]})
        loop.close()


def interrupted_script():
    counts = {"a": 0}
    trace = asynctrace.Trace("r", sinks=[store])
    threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGINT))).start()
    try:
        while True:
            trace.info(f"a {counts['a']}")
            counts["a"] += 1
            if counts["a"] % 1000 == 0:
                time.sleep(0.001)
    finally:
        print(counts)


def daemon_threads():
    trace = asynctrace.Trace("r", sinks=[store])

    def work(name):
        i = 0
        while True:
            trace.info(f"{name} {i}")
            i += 1
            time.sleep(0.001)

    for name in ("a", "b"):
        threading.Thread(target=work, args=(name,), daemon=True).start()
    time.sleep(0.1)
    trace.info("main is done")


def late_thread():
    """A thread that is no daemon goes on after the main thread has ended."""
    trace = asynctrace.Trace("r", sinks=[store])
    main = threading.main_thread()

    def work():
        main.join()
        time.sleep(0.1)
        trace.info("after the main thread")

    threading.Thread(target=work).start()
    trace.info("m")


class Hung:
    """A remote back end that never answers."""

    async def open(self):
        pass

    async def write(self, batch):
        await asyncio.sleep(3600)

    async def aclose(self):
        await asyncio.sleep(3600)


def hung():
    asynctrace.configure(store, Hung(), close_timeout=0.5)
    trace = asynctrace.get_trace("r")
    trace.info("m")


def hung_in_loop():
    asynctrace.configure(close_timeout=0.5)

    async def main():
        async with asynctrace.Trace("r", sinks=[store, Hung()]) as trace:
            trace.info("m")

    asyncio.run(main())


globals()[scenario]()
