"""Programs that fork or spawn; the child's records and the parent's are both in the store.

Usage: python forks.py SCENARIO STORE_URL
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys
import threading

import asynctrace

scenario, store = sys.argv[1], sys.argv[2]


def fork(child):
    """Fork; the child calls the function and exits as a program does, by returning from the main module."""
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    return pid


def join(*pids):
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the child failed"


def before_use():
    """A prefork master configures, starts nothing, and forks its workers."""
    asynctrace.configure(store)
    assert threading.active_count() == 1

    def work():
        trace = asynctrace.get_trace("r")
        for i in range(50):
            trace.info(f"child {i}")

    pids = [fork(work) for _ in range(4)]
    join(*pids)
    asynctrace.get_trace("r").info("parent")


def after_use():
    """The trace is in use when the program forks; both sides go on with it."""
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("before")
    trace.flush()
    pid = fork(lambda: [trace.info(f"child {i}") for i in range(50)])
    for i in range(50):
        trace.info(f"parent {i}")
    join(pid)
    trace.close()


def full_queue():
    """The queue is full of the parent's records: they are the parent's to deliver."""
    trace = asynctrace.Trace("r", sinks=[store])
    for i in range(5_000):
        trace.info(f"before {i}")
    pid = fork(lambda: trace.info("child"))
    trace.info("parent")
    join(pid)


def inside_a_loop():
    """The fork happens in a coroutine, whose trace lives on the running loop.

    The child must not return into the loop, which shares its epoll with the parent's: asyncio itself hangs then.
    """

    async def main():
        async with asynctrace.Trace("r", sinks=[store]) as trace:
            await trace.ainfo("before")
            pid = os.fork()
            if pid == 0:
                trace.info("child")
                trace.flush()
                os._exit(0)
            await asyncio.to_thread(join, pid)
            await trace.ainfo("parent")

    asyncio.run(main())


def loop_in_child():
    """The child of a program with a trace runs its own event loop with its own trace."""
    trace = asynctrace.Trace("parent", sinks=[store])
    trace.info("before")
    trace.flush()

    async def main():
        async with asynctrace.Trace("child", sinks=[store]) as own:
            await own.ainfo("child")

    pid = fork(lambda: asyncio.run(main()))
    join(pid)
    trace.info("parent")


def grandchild():
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("before")

    def child():
        trace.info("child")
        join(fork(lambda: trace.info("grandchild")))

    join(fork(child))
    trace.info("parent")


def worker(name):
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info(name)


def by_multiprocessing(method):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=worker, args=(f"child {i}",)) for i in range(3)]
    if method == "fork":
        asynctrace.configure(store)
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    worker("parent")


def multiprocessing_fork():
    by_multiprocessing("fork")


def multiprocessing_spawn():
    by_multiprocessing("spawn")


def multiprocessing_forkserver():
    by_multiprocessing("forkserver")


def pool_worker(name):
    asynctrace.configure(store)
    asynctrace.get_trace("r").info(name)


def pool(method):
    """Closed and joined, its workers end by themselves; leaving its block would kill them by SIGTERM."""
    with multiprocessing.get_context(method).Pool(3) as workers:
        workers.map(pool_worker, [f"child {i}" for i in range(30)], chunksize=1)
        workers.close()
        workers.join()
    worker("parent")


def pool_fork():
    pool("fork")


def pool_spawn():
    pool("spawn")


def futures_worker(name):
    asynctrace.configure(store)
    asynctrace.get_trace("r").info(name)


def futures(method):
    """The workers of this kind of pool end by themselves."""
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as workers:
        list(workers.map(futures_worker, [f"child {i}" for i in range(30)]))
    worker("parent")


def futures_fork():
    futures("fork")


def futures_spawn():
    futures("spawn")


def receipts():
    """A fork inside the block of a receipt: each side waits for its own records."""
    trace = asynctrace.Trace("r", sinks=[store])
    with trace.receipt() as receipt:
        for i in range(50):
            trace.info(f"parent {i}")
        pid = os.fork()
        if pid == 0:
            with trace.receipt() as own:
                trace.info("child 0")
            assert own.records == own.lanes[0].safe == 1, own
            trace.info("child 1")
        else:
            join(pid)
    assert receipt.records == receipt.lanes[0].safe == (50 if pid else 2), receipt


def multiprocessing_inherited():
    """Children of multiprocessing that go on with a trace which is in use; they never see `atexit`."""
    trace = asynctrace.Trace("r", sinks=[store])
    trace.info("before")
    trace.flush()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=lambda i=i: trace.info(f"child {i}")) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    trace.info("parent")


if __name__ == "__main__":
    globals()[scenario]()
