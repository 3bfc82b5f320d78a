"""One life of a program that may die: records into SQLite and into a remote store, and what it knows to be safe.

Usage: python lives.py FOLDER RUN_ID COUNT STEP UP|DOWN END

Writes ``LANE NUMBER`` on stdout when all records up to that number are safe in the lane, or on its disk.
"""

import asyncio
import json
import os
import sys

from asynctrace import LaneOptions, RetryPolicy, Trace, TransientSinkError

folder, run_id, count, step, weather, end = sys.argv[1:]


class Remote:
    """Appends what it is given to a file, unless it is down."""

    def __repr__(self):
        return "<Remote test://host>"

    async def open(self):
        self._file = open(f"{folder}/remote", "a")  # noqa: ASYNC230, SIM115

    async def write(self, batch):
        if weather == "DOWN":
            raise TransientSinkError("nobody there")
        for record in batch:
            self._file.write(
                json.dumps([record.producer, record.seq, record.run_id, record.kind.value, record.message])
                + "\n"
            )
        self._file.flush()

    async def aclose(self):
        self._file.close()


async def main():
    spilling = LaneOptions(
        max_records=50, high_water=1, when_full="spill", retry=RetryPolicy(base=0.001, ceiling=0.01)
    )
    trace = Trace(run_id, sinks=[f"sqlite:{folder}/t.db", (Remote(), spilling)])
    await trace.__aenter__()
    for number in range(int(count)):
        trace.info(str(number))
        if number % int(step) == 0:
            report = await trace.aflush(0.02 if weather == "DOWN" else 10)  # it would wait for the store
            for lane in report.lanes:
                if lane.pending == 0:
                    print(lane.lane, number, flush=True)
    if end == "close":
        await trace.aclose(5 if weather == "UP" else 0.2)
        print("closed", flush=True)
    elif end == "raise":
        raise KeyError("on purpose")
    elif end == "_exit":
        os._exit(0)
    elif end == "kill":
        print("waiting", flush=True)
        await asyncio.sleep(60)


asyncio.run(main())
