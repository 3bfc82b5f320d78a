"""Programs that end in all the ways a program can end; each records what its test looks for in the store.

Usage: python exits.py SCENARIO STORE_URL [asyncio|uvloop]
"""

import asyncio
import atexit
import logging
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time

import asynctrace

scenario, store, kind = (*sys.argv[1:], "asyncio")[:3]


def new_loop():
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def run(main):
    """What ``asyncio.run`` does, on either loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def unhurried():
    """For scenarios in which waiting for the deadline of closing would be the mistake: it could not be overlooked."""
    asynctrace.configure(store, close_timeout=60)


def emit(trace, count=2_000):
    for i in range(count):
        trace.info(f"m{i}")


async def opened(messages=0):
    """A run that nobody closes, with so many records on their way."""
    trace = asynctrace.Trace("r", sinks=[store])
    await trace.__aenter__()
    emit(trace, messages)
    return trace


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


def atexit_only_configured():
    asynctrace.configure(store)
    trace = asynctrace.get_trace("r")
    atexit.register(lambda: trace.info("from atexit"))


def unclosed_and_unhandled():
    asynctrace.configure(store)
    asynctrace.get_trace("r").info("m")
    raise RuntimeError("nobody handles this")


def work(url, name):
    asynctrace.configure(url)
    asynctrace.get_trace(name).info("m")
    if name == "raises":
        raise RuntimeError("nobody handles this")
    if name in ("leaves", "gives up"):
        sys.exit(name == "gives up")


def workers(method):
    asynctrace.configure(store)
    trace = asynctrace.get_trace("r")
    trace.info("m")
    context = multiprocessing.get_context(method)
    names = ("returns", "raises", "leaves", "gives up")
    processes = [context.Process(target=work, args=(store, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def workers_fork():
    workers("fork")


def workers_spawn():
    workers("spawn")


def workers_forkserver():
    workers("forkserver")


def after_close():
    with asynctrace.Trace("r", sinks=[store]) as trace:
        trace.info("m")
    trace.info("after close")


def after_shutdown():
    """Whoever goes on after the end of everything gets a new pipeline, or the old one's last resort."""
    asynctrace.configure(store)
    before = asynctrace.get_trace("r")
    before.info("m")
    asynctrace.shutdown()
    before.info("late")
    asynctrace.Trace("r2", sinks=[store]).info("anew")


class Farewell:
    """Speaks up when it is thrown away, which for a global is after everything else."""

    def __init__(self, trace):
        self.trace = trace

    def __del__(self):
        self.trace.info("farewell")


def finaliser_at_the_very_end():
    global kept
    trace = asynctrace.Trace("r", sinks=[store])
    Farewell(trace)
    trace.info("m")
    kept = Farewell(trace)


def sys_exit():
    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            await trace.ainfo("m")
            sys.exit(3)

    run(main())


def sys_exit_in_sibling():
    unhurried()

    async def sibling():
        sys.exit(3)

    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            for i in range(1000):
                trace.info(f"m{i}")
            task = asyncio.create_task(sibling())
            try:
                await asyncio.sleep(30)
            finally:
                trace.info("finally")
                await trace.aflush()
                del task

    run(main())


def unhandled():
    async def main():
        trace = asynctrace.Trace("r", sinks=[store])
        async with trace:
            await trace.ainfo("m")
            raise RuntimeError("nobody handles this")

    run(main())


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
        trace = await opened()
        tasks = [asyncio.create_task(sibling(trace, i)) for i in range(20)]
        await asyncio.sleep(0.01)
        trace.info("main")
        return tasks

    unhurried()
    started = time.monotonic()
    run(main())
    assert time.monotonic() - started < 30, "the end of the loop waited for a deadline"


def cancel_all():
    """The usual recipe of a graceful shutdown cancels our tasks too, and waits for them."""

    async def main():
        trace = await opened()
        trace.info("before")
        await trace.aflush()
        started = time.monotonic()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - started < 30, "the recipe waited for us, and we for the recipe"
        trace.info("after")
        await trace.aclose()

    unhurried()
    run(main())


def bare_loop_closed():
    loop = new_loop()
    loop.run_until_complete(opened(100))
    loop.close()


def bare_loop_left_open():
    loop = new_loop()
    loop.run_until_complete(opened(100))
    sys.modules["keep"] = loop


def other_loop_closes():
    """The home stands still for good; another loop awaits the closing."""

    async def main():
        trace = await opened()
        trace.info("m")
        return trace

    async def end(trace):
        trace.info("on another loop")
        await trace.aclose()

    unhurried()
    loop = new_loop()
    trace = loop.run_until_complete(main())
    started = time.monotonic()
    run(end(trace))
    assert time.monotonic() - started < 30
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
        trace = await opened()
        generator = numbers(trace)
        kept.append(generator)
        await generator.__anext__()
        trace.info("m")

    run(main())


def two_runs():
    async def main(i):
        async with asynctrace.Trace(f"r{i}", sinks=[store]) as trace:
            await trace.ainfo(f"m{i}")

    run(main(1))
    run(main(2))


def two_runs_default():
    asynctrace.configure(store)

    async def main(i):
        trace = asynctrace.get_trace(f"r{i}")
        await trace.ainfo(f"m{i}")
        await asynctrace.aflush()

    run(main(1))
    run(main(2))


def two_runs_global():
    trace = asynctrace.Trace("r", sinks=[store])

    async def main(i):
        await trace.ainfo(f"m{i}")

    run(main(1))
    run(main(2))


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

    threading.Thread(target=press_after, args=(counts, 300), daemon=True).start()
    try:
        run(main())
    finally:
        print(counts)


def interrupted_bare():
    """Ctrl-C on a bare loop, where it strikes anywhere, in our own code too."""
    counts = {"a": 0}

    async def main():
        trace = await opened()
        while True:
            for _ in range(500):
                trace.info(f"a {counts['a']}")
                counts["a"] += 1
            await asyncio.sleep(0 if counts["a"] < 20_000 else 0.01)  # a busy machine must end this, too

    threading.Thread(target=press_after, args=(counts, 3_000), daemon=True).start()
    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        print({"a": counts["a"]})
        loop.close()


def interrupted_script():
    counts = {"a": 0}
    trace = asynctrace.Trace("r", sinks=[store])
    threading.Thread(target=press_after, args=(counts, 3_000), daemon=True).start()
    try:
        while True:
            trace.info(f"a {counts['a']}")
            counts["a"] += 1
            if counts["a"] % 100 == 0:
                time.sleep(0.001)
    finally:
        print(counts)


def press_after(counts, least):
    """Press Ctrl-C when so many records have been emitted, and a moment later."""
    while sum(counts.values()) < least:
        time.sleep(0.001)
    press(time.time() % 0.05)


def daemon_threads():
    trace = asynctrace.Trace("r", sinks=[store])
    counts = {"a": 0, "b": 0}

    def work(name):
        while True:
            trace.info(f"{name} {counts[name]}")
            counts[name] += 1
            time.sleep(0.001)

    for name in counts:
        threading.Thread(target=work, args=(name,), daemon=True).start()
    while min(counts.values()) < 50:
        time.sleep(0.001)
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


class HungRemote(Hung):
    """The same with a name, so that what it does not take may wait on disk."""

    def __repr__(self):
        return "<HungRemote test://host>"


def interrupted_at_exit():
    """Nobody wants to wait for a back end that hangs: not while the exit flushes, nor while it closes."""
    asynctrace.configure(store, HungRemote(), close_timeout=600)
    asynctrace.get_trace("r").info("m")

    def impatient():
        for _ in range(2):
            press(1.5)

    threading.Thread(target=impatient, daemon=True).start()


def tell_seconds_of_the_end():
    """Print them when everything else has ended; called first of all."""
    ends = []
    atexit.register(lambda: print(time.monotonic() - ends[0]))
    return lambda: ends.append(time.monotonic())


async def open_beside_a_hung_one():
    """Two pipelines, so that nothing is waited for in turn either."""
    for name in ("r", "s"):
        trace = asynctrace.Trace(name, sinks=[store, Hung()])
        await asyncio.create_task(trace.__aenter__())
        trace.info("m")


def one_deadline():
    """The end of the loop, then that of the program."""
    ends = tell_seconds_of_the_end()

    async def main():
        await open_beside_a_hung_one()
        ends()

    run(main())


def one_deadline_bare_loop():
    ends = tell_seconds_of_the_end()
    loop = new_loop()
    loop.run_until_complete(open_beside_a_hung_one())
    ends()
    loop.close()


def one_deadline_thread():
    """A sink that blocks the loop's thread is not at its end when closing gives up; the exit does not wait again."""

    class Blocking(Hung):
        async def write(self, batch):
            time.sleep(3600)  # noqa: ASYNC251

    ends = tell_seconds_of_the_end()
    ends()
    with asynctrace.Trace("r", sinks=[Blocking()]) as trace:
        trace.info("m")


def hung_in_loop():
    asynctrace.configure(close_timeout=0.5)

    async def main():
        async with asynctrace.Trace("r", sinks=[store, Hung()]) as trace:
            trace.info("m")

    run(main())


def down():
    """A back end that cannot be reached, with no place on disk."""
    asynctrace.configure(store, Down(), close_timeout=0.5)
    asynctrace.get_trace("r").info("m")


class Down:
    """A remote back end that is away."""

    async def open(self):
        raise ConnectionRefusedError("nobody listens")

    async def write(self, batch):
        raise ConnectionResetError("gone")

    async def aclose(self):
        pass


def aclose_cancelled():
    """The task that closes is cancelled three times; the sink takes its time."""

    class Slow(Hung):
        async def write(self, batch):
            await asyncio.sleep(0.2)

    asynctrace.configure(close_timeout=2)  # its `aclose` hangs for as long

    async def main():
        trace = asynctrace.Trace("r", sinks=[store, (Slow(), asynctrace.LaneOptions())])
        await trace.__aenter__()
        for i in range(1000):
            trace.info(f"m{i}")
        closing = asyncio.create_task(trace.aclose())
        for _ in range(3):
            await asyncio.sleep(0.01)
            closing.cancel()
        try:
            await closing
        except asyncio.CancelledError:
            trace.info("late")
        else:
            raise AssertionError("the cancellation was swallowed")

    run(main())


def closed_under_us():
    """The loop is closed past every hook while records are on their way; others follow."""
    loop = new_loop()
    trace = loop.run_until_complete(opened(100))
    type(loop).close(loop)
    for i in range(100, 200):
        trace.info(f"m{i}")


def generator_closed_elsewhere():
    """An asynchronous generator with a trace and a span in it is closed by another task than began it."""

    async def numbers():
        async with asynctrace.Trace("r", sinks=[store]) as trace, trace.span("s"):
            try:
                trace.info("begun")
                yield 1
                yield 2
            finally:
                trace.info("finally")

    async def main():
        generator = numbers()
        await asyncio.create_task(anext_of(generator))
        await asyncio.create_task(generator.aclose())
        with asynctrace.Trace("other", sinks=[store]) as other:
            assert asynctrace.current_trace() is other
            other.info("afterwards")

    async def anext_of(generator):
        return await anext(generator)

    run(main())


def interrupted_twice():
    """The second Ctrl-C strikes while the first one's cleaning up goes on."""

    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            trace.info("before")
            try:
                asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
            finally:
                trace.info("cleaning up")
                asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
                for i in range(20):
                    await trace.ainfo(f"step {i}")
                    await asyncio.sleep(0.01)

    run(main())


def interrupted_twice_script():
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("before")
    try:
        threading.Thread(target=press, args=(0.1,)).start()
        time.sleep(60)
    finally:
        trace.info("cleaning up")
        threading.Thread(target=press, args=(0.1,)).start()
        time.sleep(60)


def press(pause, number=signal.SIGINT):
    time.sleep(pause)
    os.kill(os.getpid(), number)


# -- SIGTERM -------------------------------------------------------------------------------------------------


def terminated():
    """Tells whoever waits what it has emitted and when, until it is ended from outside; nothing handles the signal."""
    trace = asynctrace.Trace("r", sinks=[store])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for i in range(100_000):
        trace.info(f"m{i}")
        os.write(1, b"%d %f\n" % (i, time.monotonic()))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "nobody asked for a handler"
        time.sleep(0.002)


def terminated_in_loop():
    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            for i in range(100_000):
                trace.info(f"m{i}")
                os.write(1, b"%d %f\n" % (i, time.monotonic()))
                await asyncio.sleep(0.002)

    run(main())


def end_by_sigterm():
    """The signal, or who handles it, ends the program."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


async def emit_and_end_by_sigterm():
    """The same in a run on a loop, which goes on."""
    async with asynctrace.Trace("r", sinks=[store]) as trace:
        emit(trace)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)


def sigterm_script():
    asynctrace.configure(store, handle_sigterm=True)
    emit(asynctrace.get_trace("r"))
    end_by_sigterm()


def sigterm_at_rest():
    """The main thread sleeps in a system call when the signal comes."""
    asynctrace.configure(store, handle_sigterm=True)
    emit(asynctrace.get_trace("r"))
    threading.Thread(target=press, args=(0.2, signal.SIGTERM), daemon=True).start()
    time.sleep(60)


def sigterm_by_environment():
    os.environ["ASYNCTRACE_HANDLE_SIGTERM"] = "true"
    emit(asynctrace.Trace("r", sinks=[store]))
    end_by_sigterm()


def sigterm_in_loop():
    asynctrace.configure(handle_sigterm=True)
    run(emit_and_end_by_sigterm())


def sigterm_stuck_loop():
    """The loop on which the trace lives is blocked by the user's code."""
    asynctrace.configure(handle_sigterm=True, close_timeout=0.5)

    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            emit(trace)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # noqa: ASYNC251  # blocking the loop is what this is about

    run(main())


def sigterm_storm():
    """The signal strikes anywhere in the main thread, which does nothing but emit."""
    asynctrace.configure(store, handle_sigterm=True)
    trace = asynctrace.get_trace("r")
    count = 0

    def kill():
        while count < 3_000:
            time.sleep(0.001)
        time.sleep(time.time() % 0.1)
        os.write(1, b"%d" % count)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill, daemon=True).start()
    while True:
        trace.info(f"m{count}")
        count += 1
        if count % 100 == 0:
            time.sleep(0.001)


def sigterm_users_handler():
    """Set before: called when everything is in the store, and free to end the program as it likes."""

    def handler(number, frame):
        connection = sqlite3.connect(store.removeprefix("sqlite:"))
        (stored,) = connection.execute("SELECT count(*) FROM traces WHERE message LIKE 'm%'").fetchone()
        connection.close()
        os.write(1, b"%d %d\n" % (number, stored))
        trace.info("in the handler")
        sys.exit(7)

    signal.signal(signal.SIGTERM, handler)
    asynctrace.configure(store, handle_sigterm=True)
    trace = asynctrace.get_trace("r")
    emit(trace)
    end_by_sigterm()


def sigterm_users_handler_in_loop():
    def handler(number, frame):
        sys.exit(7)

    signal.signal(signal.SIGTERM, handler)
    asynctrace.configure(handle_sigterm=True)
    run(emit_and_end_by_sigterm())


def sigterm_goes_on():
    """The user's handler only takes a note, twice; the program ends in its own time."""
    notes = []
    signal.signal(signal.SIGTERM, lambda number, frame: notes.append(number))
    asynctrace.configure(store, handle_sigterm=True)
    trace = asynctrace.get_trace("r")
    emit(trace)
    for count in (1, 2):
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 50
        while len(notes) < count:
            assert time.monotonic() < end
            time.sleep(0.001)
        trace.info(f"after {count}")


def sigterm_unhandled_by_us():
    """Without the setting a user's handler has the signal for itself, and the usual end loses nothing."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    asynctrace.configure(store)
    emit(asynctrace.get_trace("r"))
    end_by_sigterm()


def sigterm_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asynctrace.configure(store, handle_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGTERM)
    asynctrace.get_trace("r").info("still here")


def sigterm_taken_back():
    asynctrace.configure(store, handle_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    asynctrace.configure(store)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    asynctrace.get_trace("r").info("m")


def sigterm_other_thread():
    """Only the main thread may take over a signal: elsewhere it is said, and nothing happens."""
    logging.basicConfig(format="%(message)s")
    thread = threading.Thread(target=lambda: asynctrace.configure(store, handle_sigterm=True))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    asynctrace.get_trace("r").info("m")


def sigterm_hung():
    asynctrace.configure(store, Hung(), handle_sigterm=True, close_timeout=0.5)
    asynctrace.get_trace("r").info("m")
    end_by_sigterm()


def sigterm_twice():
    """Somebody is impatient: the second signal ends the program at once, whatever is still on its way."""
    asynctrace.configure(store, Hung(), handle_sigterm=True, close_timeout=600)
    asynctrace.get_trace("r").info("m")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    time.sleep(600)


def sigterm_loops_handler():
    """An event loop's own handler is left alone, whether it was there before us or came after."""

    async def main():
        for first in (True, False):
            stop, calls = asyncio.Event(), []
            loop = asyncio.get_running_loop()

            def ended(calls=calls, stop=stop):
                calls.append(1)
                stop.set()

            if first:
                loop.add_signal_handler(signal.SIGTERM, ended)
            asynctrace.configure(handle_sigterm=True, linger=0.004 + first / 1000)
            async with asynctrace.Trace("r", sinks=[store]) as trace:
                if not first:
                    loop.add_signal_handler(signal.SIGTERM, ended)
                trace.info(f"before, {first}")
                os.kill(os.getpid(), signal.SIGTERM)
                await stop.wait()
                await asyncio.sleep(0.1)
                trace.info(f"after, {first}")
            assert calls == [1], "once"
            loop.remove_signal_handler(signal.SIGTERM)

    run(main())


def sigterm_while_ending():
    """The signal comes while the program is on its way out already."""
    asynctrace.configure(store, handle_sigterm=True)
    trace = asynctrace.get_trace("r")
    atexit.register(os.kill, os.getpid(), signal.SIGTERM)
    emit(trace)


class Worker:
    """A forked process that works until it is terminated, and tells how far it has come."""

    def __init__(self, name, prepare=lambda: None):
        self.name = name
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            self.pipe, self.unread, self.last = read, b"", -1
            return
        prepare()
        trace = asynctrace.get_trace(f"worker-{name}")
        for i in range(100_000):
            trace.info(f"{name} {i}")
            os.write(write, b"%d\n" % i)
            time.sleep(0.002)
        os._exit(1)

    def terminate(self):
        """End it when it has done some work; how far it had come before that."""
        while self.last < 20:
            self.listen()
        os.kill(self.pid, signal.SIGTERM)
        return self.last

    def listen(self):
        """Whether it is still there."""
        heard = os.read(self.pipe, 1 << 16)
        *lines, self.unread = (self.unread + heard).split(b"\n")
        if lines:
            self.last = int(lines[-1])
        return bool(heard)

    def end(self):
        """Its exit status, and how far it came."""
        while self.listen():
            pass
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.last


def prefork():
    """As gunicorn does it: the master configures, forks and never traces; workers work until they are terminated."""
    asynctrace.configure(store, handle_sigterm=True)
    assert threading.active_count() == 1
    workers = [Worker(name) for name in range(4)]
    for worker in workers:
        os.write(1, b"%d %d\n" % (worker.name, worker.terminate()))
    for worker in workers:
        status, _ = worker.end()
        assert status == -signal.SIGTERM, status


def prefork_own_handler():
    """Workers with a handler of their own, which ends them by an exception; nothing of ours is asked for."""
    asynctrace.configure(store)
    leave = lambda: signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # noqa: E731
    workers = [Worker(name, leave) for name in range(4)]
    for worker in workers:
        worker.terminate()
    for worker in workers:
        status, last = worker.end()
        assert status == 0, status
        os.write(1, b"%d %d\n" % (worker.name, last))


if __name__ == "__main__":
    globals()[scenario]()
