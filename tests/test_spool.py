"""The spool: records go in and come out in order, across restarts, crashes and processes."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from disk_kit import files_up_to

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.encoding import json_line
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.pipeline.claim import Claim, is_free
from asynctrace.pipeline.entries import HEADER_BYTES
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.spool_page import look, purge
from asynctrace.pipeline.stream import FROM_DEAD_LETTERS
from asynctrace.pipeline.stream_queue import Adopted
from asynctrace.testing import ManualClock, make_batch, make_record

ROOT = Path(__file__).parents[1]


def spool_at(directory: Path, **options: object) -> Spool:
    return Spool(directory, clock=ManualClock(), **options)  # type: ignore[arg-type]


def drain(spool: Spool, limit: int = 100) -> list[Record]:
    records: list[Record] = []
    while (reading := spool.read(limit)).position is not None:
        records += reading.batch.records
        spool.acknowledge(reading.position)
    return records


def numbers(records: list[Record]) -> list[int]:
    return [record.seq for record in records]


def test_ten_thousand_records_come_back_equal_and_in_order(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "lane", segment_bytes=50_000)
    written = make_batch(10_000)
    for start in range(0, 10_000, 250):
        assert spool.append(written[start : start + 250]).kept == 250
    assert spool.held == 10_000

    read = drain(spool)

    assert read == list(written)
    assert spool.held == 0
    assert spool.exhausted
    spool.close()
    assert look(tmp_path / "lane").size == 0


def test_marks_come_back_with_their_records_and_do_not_count(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    marks = (Mark("p", 1, 2, 2), Mark("p", 3, 9, 5, filtered=2))
    spool.append(Batch(make_batch(2, producer="p").records, marks))
    spool.append(Batch((), (Mark("p", 10, 10, 0, dropped=1),)))
    assert spool.held == 2

    reading = spool.read(100)

    assert len(reading.batch) == 2
    assert reading.batch.marks == (*marks, Mark("p", 10, 10, 0, dropped=1))
    spool.close()


def test_one_reading_holds_one_producer(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    for producer in ("a", "b", "a"):
        spool.append(make_batch(2, producer=producer))
    seen = []
    while (reading := spool.read(100)).position is not None:
        seen.append([record.producer for record in reading.batch])
        spool.acknowledge(reading.position)
    assert seen == [["a", "a"], ["b", "b"], ["a", "a"]]
    spool.close()


def test_what_was_closed_is_adopted_in_the_order_it_was_spooled(tmp_path: Path) -> None:
    clock = ManualClock()
    for first in (0, 10, 20):
        clock.advance(1.0)
        spool = Spool(tmp_path, clock=clock)
        spool.append(make_batch(10, first=first))
        spool.close()

    heir = Spool(tmp_path, clock=clock)
    assert heir.adopt() == Adopted(adopted=30)
    heir.append(make_batch(5, first=30))
    assert heir.held == 35
    assert numbers(drain(heir)) == list(range(35))
    heir.close()
    assert list(tmp_path.glob("*-*")) == []


def test_newcomers_stay_behind_although_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = ManualClock()
    before = Spool(tmp_path, clock=clock)
    before.append(make_batch(2))
    before.close()
    clock.set_time_ns(1)
    heir = Spool(tmp_path, clock=clock, max_age=1e12)
    heir.adopt()
    heir.append(make_batch(2, first=2))
    heir.close()

    third = Spool(tmp_path, clock=clock, max_age=1e12)
    assert third.adopt().adopted == 4
    assert numbers(drain(third)) == [0, 1, 2, 3]
    third.close()


def test_what_is_older_is_put_before_everything_else(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(make_batch(3, first=10))
    spool.read(1)
    spool.put_first([make_batch(5), make_batch(5, first=5)])
    spool.rewind()
    assert spool.held == 13
    spool.close()

    heir = spool_at(tmp_path)
    assert heir.adopt() == Adopted(adopted=13)
    assert numbers(drain(heir)) == list(range(13))
    heir.close()


def test_a_living_spool_is_not_adopted(tmp_path: Path) -> None:
    living = spool_at(tmp_path)
    living.append(make_batch(3))
    other = spool_at(tmp_path)

    assert other.adopt() == Adopted()
    assert look(tmp_path).in_use == 3
    assert purge(tmp_path) == 0
    assert numbers(drain(living)) == [0, 1, 2]
    living.close()
    other.close()


def test_read_and_not_acknowledged_comes_again(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    for producer in ("a", "b"):
        spool.append(make_batch(3, producer=producer))
    spool.read(10)
    spool.rewind()
    assert len(drain(spool)) == 6
    spool.close()


def test_bytes_are_capped_with_a_part_reserved_for_errors(tmp_path: Path) -> None:
    size = len(json_line(make_record(0))) + HEADER_BYTES
    spool = spool_at(tmp_path, max_bytes=size * 20)
    plain = spool.append(make_batch(30))
    errors = spool.append(Batch([make_record(n, level=Level.ERROR) for n in range(30, 40)]))

    assert 10 <= plain.kept <= 18
    assert [record.seq for record in plain.refused] == list(range(plain.kept, 30))
    assert errors.kept >= 1
    assert len(errors.refused) == 10 - errors.kept
    assert spool.size <= size * 20
    assert len(drain(spool)) == plain.kept + errors.kept
    assert spool.append(make_batch(3, first=50)).kept == 3, "room returned"
    spool.close()


def test_what_is_too_old_is_counted_and_not_given_out(tmp_path: Path) -> None:
    clock = ManualClock(time_ns=make_record(9).time_ns)
    spool = Spool(tmp_path, max_age=0.005, clock=clock)
    spool.append(make_batch(10))  # a millisecond apart, the newest is of this moment

    reading = spool.read(100)

    assert reading.expired == 4
    assert numbers(list(reading.batch)) == [4, 5, 6, 7, 8, 9]
    assert reading.position is not None
    spool.acknowledge(reading.position)
    assert spool.held == 0
    spool.close()


def test_damage_is_reported_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, segment_bytes=1500)
    for number in range(12):
        spool.append(make_batch(1, first=number))
    path = sorted(tmp_path.glob("*/*.seg"))[1]
    path.write_bytes(b"\xff" * path.stat().st_size)
    read: list[Record] = []
    lost = 0
    while (reading := spool.read(4)).position is not None:
        read += reading.batch.records
        lost += reading.damaged
        spool.acknowledge(reading.position)

    assert lost > 0
    assert len(read) + lost == 12
    assert numbers(read) == sorted(numbers(read))
    assert spool.exhausted
    spool.close()


def test_records_out_of_dead_letters_are_told_apart(tmp_path: Path) -> None:
    letters = spool_at(tmp_path, origin=FROM_DEAD_LETTERS)
    letters.append(make_batch(2))
    letters.close()
    spool = spool_at(tmp_path)
    assert spool.adopt() == Adopted(replayed=2)
    spool.close()
    assert purge(tmp_path) == 2
    assert look(tmp_path).records == 0


def test_nothing_is_made_before_the_first_record(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "a" / "b")
    assert not spool.is_there()
    assert spool.adopt() == Adopted()
    assert spool.read(10).position is None
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_can_look_into_it(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "state" / "lane")
    spool.append(make_batch(1))
    paths = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o700, 0o600}
    spool.close()


WRITER = """
import sys
from pathlib import Path
from asynctrace.pipeline.spool import Spool
from asynctrace.testing import make_batch
spool = Spool(Path(sys.argv[1]), segment_bytes=5000, max_age=1e12)
first = 0
while True:
    spool.append(make_batch(10, first=first))
    first += 10
    print(first, flush=True)
"""


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.parametrize("lines", [1, 60])
def test_the_spool_of_a_killed_process_is_adopted(tmp_path: Path, lines: int) -> None:
    process = start(WRITER, tmp_path)
    assert process.stdout is not None
    promised = [int(process.stdout.readline()) for _ in range(lines)][-1]
    heir = spool_at(tmp_path, max_age=1e12)
    assert heir.adopt() == Adopted(), "while it lives, it is its own"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    process.stdout.close()

    adopted = heir.adopt().adopted

    assert adopted >= promised
    assert numbers(drain(heir)) == list(range(adopted))
    heir.close()


ADOPTER = """
import sys
from pathlib import Path
from asynctrace.pipeline.spool import Spool
spool = Spool(Path(sys.argv[1]), max_age=1e12)
print("ready", flush=True)
sys.stdin.readline()
adopted = spool.adopt().adopted
records = []
while (reading := spool.read(50)).position is not None:
    records += [record.seq for record in reading.batch]
    spool.acknowledge(reading.position)
assert len(records) == adopted
print(*records, flush=True)
sys.stdin.readline()
"""


def test_of_several_processes_that_adopt_at_once_one_gets_each_record(tmp_path: Path) -> None:
    for first in range(0, 600, 100):
        spool = spool_at(tmp_path)
        spool.append(make_batch(100, first=first))
        spool.close()
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", ADOPTER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    got: list[int] = []
    for rival in rivals:
        assert rival.stdout is not None
        got += map(int, rival.stdout.readline().split())
    for rival in rivals:
        rival.communicate("end\n", timeout=20)
        assert rival.returncode == 0

    assert sorted(got) == list(range(600))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_keeps_nor_takes_its_parents_spool(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from asynctrace.pipeline.spool import Spool
from asynctrace.testing import make_batch
spool = Spool(Path(sys.argv[1]), max_age=1e12)
spool.append(make_batch(3))
child = os.fork()
if child == 0:
    spool = Spool(Path(sys.argv[1]), max_age=1e12)
    print("child adopts", spool.adopt().adopted, flush=True)
    sys.stdin.readline()
    print("orphan adopts", spool.adopt().adopted, flush=True)
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "child adopts 0\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=20)  # the child lives on, with every descriptor it inherited
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stdout.readline() == "orphan adopts 3\n"
    process.stdout.close()


def test_a_claim_says_who_holds_a_directory(tmp_path: Path) -> None:
    assert is_free(tmp_path)
    claim = Claim.take(tmp_path)
    assert not is_free(tmp_path)
    claim.release()
    assert is_free(tmp_path)
    (tmp_path / "owner").write_text("not what we wrote")
    assert is_free(tmp_path), "nobody has locked it"


# -- disks that do not take or give ----------------------------------------------------------------------------


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_when_the_first_place_refuses_the_second_takes_it_and_order_holds(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    spool = spool_at(first, elsewhere=[second])
    spool.append(make_batch(5))
    shutil.rmtree(first)
    first.touch()  # no directory can be made there any more
    spool.append(make_batch(5, first=5))
    spool.append(make_batch(5, first=10))
    assert spool.held == 15
    spool.close()
    assert look(second).records == 10

    first.unlink()
    back = spool_at(first, elsewhere=[second])
    assert back.adopt().adopted == 10
    back.append(make_batch(5, first=15))
    assert numbers(drain(back)) == list(range(5, 20))
    back.close()
    assert look(second).records == look(first).records == 0


def test_what_no_place_takes_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "first", elsewhere=[tmp_path / "second"])
    with files_up_to(0), pytest.raises(OSError, match="File too large"):
        spool.append(make_batch(5))
    with files_up_to(0), pytest.raises(OSError, match="File too large"):
        spool.put_first([make_batch(5)])
    assert not list(tmp_path.rglob("*.seg"))
    assert spool.held == 0
    spool.append(make_batch(5))
    assert numbers(drain(spool)) == list(range(5))


def test_what_cannot_be_noted_does_not_stop_the_reading(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(make_batch(20))
    shown: list[Record] = []
    (noted,) = tmp_path.rglob("acknowledged")
    with files_up_to(32):
        while (reading := spool.read(7)).position is not None:
            shown += reading.batch
            spool.acknowledge(reading.position)  # its room was taken in advance
    assert numbers(shown) == list(range(20))
    assert noted.stat().st_size == 32
    spool.close()
    assert spool_at(tmp_path).adopt().adopted == 0


def test_without_a_free_descriptor_nothing_is_given_up(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(make_batch(20))
    with free_descriptors(0):
        for _ in range(10):
            with pytest.raises(OSError, match="Too many open files"):
                spool.read(100)
    assert numbers(drain(spool)) == list(range(20))
    spool.close()


def test_a_stream_that_cannot_be_opened_now_is_left_for_later(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(make_batch(20))
    spool.close()
    later = spool_at(tmp_path)
    (segment,) = tmp_path.rglob("*.seg")
    with free_descriptors(2):  # the lock and the claim find one, the segments find none
        found = later.adopt()
    assert (found.adopted, found.damaged) == (0, 0)
    assert found.error is not None
    assert segment.exists()
    assert later.adopt().adopted == 20
    later.close()


def test_a_file_that_stays_unreadable_is_kept_aside_and_what_is_behind_it_comes(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, segment_bytes=4_000)
    for first in range(0, 30, 10):
        spool.append(make_batch(10, first=first))
    segments = sorted(tmp_path.rglob("*.seg"))
    assert len(segments) >= 3
    lost = segments[0]
    lost.unlink()
    lost.mkdir()  # reading it is an error, as of a broken disk, whoever asks
    failures = 0
    while True:
        try:
            reading = spool.read(100)
            break
        except IsADirectoryError:
            failures += 1
    assert failures == 2
    assert reading.damaged == 10
    assert numbers(list(reading.batch)) == list(range(10, 30))
    assert lost.with_suffix(".bad").exists()
