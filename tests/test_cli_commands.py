"""Each command, on each store that can be read back: the answers are the same."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cli_kit import STORES, Here, run

from asynctrace import Trace, find_trace, find_traces

Shop = tuple[str, str]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(scope="module", params=sorted(STORES))
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A store with one demo in it, and the id of its run."""
    url = STORES[request.param].format(tmp_path_factory.mktemp("shop"))
    told = run("demo", "--seed", "4", "--sinks", url, "--json")
    assert told.code == 0, told.err
    return url, json.loads(told.out)["run"]["run_id"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return STORES["sqlite"].format(tmp_path)


# -- demo ------------------------------------------------------------------------------------------


def test_demo_records_where_nothing_else_is_said_and_names_commands_that_work(tmp_path: Path) -> None:
    told = run("demo", cwd=tmp_path)

    assert (told.code, told.err) == (0, "")
    assert (tmp_path / "asynctrace.db").exists()
    shown = [line.split() for line in told.out.splitlines() if line.startswith("  asynctrace ")]
    assert [words[1] for words in shown] == ["show", "runs", "stats"]
    for words in shown:
        followed = run(*words[1:], cwd=tmp_path)
        assert (followed.code, followed.err) == (0, "")
        assert "order" in followed.out


def test_demo_records_in_several_sinks_and_shows_the_first_that_can_be_read(tmp_path: Path) -> None:
    first, second = f"file:{tmp_path}/logs", f"sqlite:{tmp_path}/t.db"

    told = run("demo", "--sinks", "memory:", "--sinks", first, "--sinks", second, "--json")

    run_id = json.loads(told.out)["run"]["run_id"]
    assert json.loads(told.out)["command"] == f"asynctrace show {run_id} --store {first}"
    assert find_trace(run_id, first).summary == find_trace(run_id, second).summary


def test_demo_records_where_the_environment_says(tmp_path: Path) -> None:
    told = run("demo", "--json", cwd=tmp_path, env={"ASYNCTRACE_SINKS": "file:./here"})

    assert told.code == 0, told.err
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert len(find_traces(f"file:{tmp_path}/here")) == 2


def test_demo_has_what_goes_wrong_in_a_real_program(shop: Shop) -> None:
    url, run_id = shop
    stored = find_trace(run_id, url)
    messages = [record.message for record in stored]
    (declined,) = [record for record in stored if record.exception is not None]
    threads = {record.thread for record in stored}
    children = [summary for summary in find_traces(url) if summary.parent_run_id == run_id]

    assert messages.count("payment service did not answer, trying again") == 1
    assert "stock is low" in messages
    assert declined.exception is not None
    assert "insufficient funds" in declined.exception.message
    assert len(threads) > 1
    assert [child.name for child in children] == ["invoices"]


def test_demo_of_one_seed_is_the_same_each_time(shop: Shop, url: str) -> None:
    told = run("demo", "--seed", "4", "--sinks", url, "--json")

    def events(store: str, run_id: str) -> list[tuple[str, str]]:
        # How many orders a worker gets depends on the machine.
        return sorted(
            (record.message, json.dumps(record.fields, sort_keys=True))
            for record in find_trace(run_id, store)
            if record.message != "nothing left to do"
        )

    assert events(url, json.loads(told.out)["run"]["run_id"]) == events(*shop)


# -- runs ------------------------------------------------------------------------------------------


def test_runs_lists_newest_first(shop: Shop, here: Here) -> None:
    url, run_id = shop

    listed = here("runs", "--store", url)

    head, service, invoices = listed.out.splitlines()
    assert (listed.code, listed.err) == (0, "")
    assert head.split() == ["RUN", "NAME", "STATUS", "STARTED", "DURATION", "RECORDS", "WARNINGS", "ERRORS"]
    assert invoices.split()[1:3] == ["invoices", "ok"]
    assert service.split()[:3] == [run_id, "order-service", "ok"]


def test_runs_as_json_tells_what_the_library_tells(shop: Shop, here: Here) -> None:
    listed = json.loads(here("runs", "--store", shop[0], "--json").out)

    expected = find_traces(shop[0])
    assert [run["run_id"] for run in listed] == [summary.run_id for summary in expected]
    assert [run["records"] for run in listed] == [summary.records for summary in expected]
    assert {run["status"] for run in listed} == {"ok"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["order-service", "invoices"]),
        (["--limit", "1"], ["order-service"]),
        (["--limit", "0"], ["order-service", "invoices"]),
        (["--level", "error"], ["order-service"]),
        (["--level", "warning", "--text", "STOCK is low"], ["order-service"]),
        (["--level", "error", "--text", "stock is low"], []),
        (["--level", "critical"], []),
        (["--text", "invoice sent"], ["invoices"]),
        (["--name", "invoices"], ["invoices"]),
        (["--field", "shop=coffee"], ["order-service"]),
        (["--field", "bytes=32"], ["order-service"]),
        (["--field", "count=8", "--field", "shop=coffee"], ["order-service"]),
        (["--field", "shop=tea"], []),
        (["--since", "1h"], ["order-service", "invoices"]),
        (["--until", "1h"], []),
        (["--since", "2001-01-01", "--until", "2001-02-01T00:00:00+01:00"], []),
    ],
)
def test_runs_filters(shop: Shop, here: Here, options: list[str], names: list[str]) -> None:
    listed = here("runs", "--store", shop[0], "--json", *options)

    assert listed.code == 0
    assert [run["name"] for run in json.loads(listed.out)] == names


def test_runs_takes_local_time_as_it_shows_it(shop: Shop, here: Here) -> None:
    url, run_id = shop
    started = datetime.fromtimestamp(find_trace(run_id, url).summary.started_ns / 1e9)
    before, after = (started + timedelta(minutes=minutes) for minutes in (-1, 1))

    between = here("runs", "--json", "--store", url, "--since", f"{before}", "--until", f"{after}")
    later = here("runs", "--json", "--store", url, "--since", f"{after}")

    assert len(json.loads(between.out)) == 2
    assert json.loads(later.out) == []


def test_runs_of_an_empty_answer_says_so_beside_the_output(shop: Shop, here: Here) -> None:
    listed = here("runs", "--store", shop[0], "--text", "no such text")

    assert (listed.code, listed.out, listed.err) == (0, "", "no runs\n")


# -- show ------------------------------------------------------------------------------------------


def test_show_draws_the_tree_with_what_failed(shop: Shop, here: Here) -> None:
    url, run_id = shop

    shown = here("show", run_id, "--store", url)

    lines = shown.out.splitlines()
    assert (shown.code, shown.err) == (0, "")
    assert lines[0].split()[:4] == ["run", run_id, "order-service", "ok"]
    assert lines[3].startswith("● order-service")
    assert sum("● worker" in line for line in lines) == 4
    (failed,) = [line for line in lines if "✖ charge" in line]
    assert "PaymentDeclinedError: card of order" in failed
    (said,) = [line for line in lines if "order cancelled" in line]
    assert "ERROR" in said
    assert "insufficient funds" in said
    assert lines[-1].split()[1:3] == ["invoices", "ok"]
    assert "Traceback" not in shown.out


def test_show_puts_records_inside_their_spans(shop: Shop, here: Here) -> None:
    lines = here("show", shop[1], "--store", shop[0]).out.splitlines()

    depth = {
        text: next(line.index(text) for line in lines if text in line) for text in ("charge ", "charged")
    }
    above = next(lines[index - 1] for index, line in enumerate(lines) if "label printed" in line)
    assert depth["charged"] > depth["charge "]
    assert "print label" in above


@pytest.mark.parametrize("part", ["latest", "the end", "the beginning"])
def test_show_takes_a_part_of_the_id(shop: Shop, here: Here, part: str) -> None:
    url, run_id = shop
    wanted = {"latest": "latest", "the end": run_id[-8:], "the beginning": run_id[:-1]}[part]

    assert here("show", wanted, "--store", url).out.split()[:2] == ["run", run_id]


def test_show_of_a_part_that_several_runs_share_names_them(shop: Shop, here: Here) -> None:
    shown = here("show", "0", "--store", shop[0])

    assert (shown.code, shown.out) == (2, "")
    assert all(summary.run_id in shown.err for summary in find_traces(shop[0]))


def test_show_of_a_run_that_is_not_there(shop: Shop, here: Here) -> None:
    shown = here("show", "no-such-run", "--store", shop[0])

    assert (shown.code, shown.out) == (1, "")
    assert shown.err == f"asynctrace: no run 'no-such-run' in {shop[0]}\n"


def test_show_with_level_without_records_and_with_stacks(shop: Shop, here: Here) -> None:
    def show(*options: str) -> str:
        return here("show", shop[1], "--store", shop[0], *options).out

    warnings, spans, stacks = show("--level", "warning"), show("--no-records"), show("--stacks")

    assert "stock is low" in warnings
    assert "charged" not in warnings
    assert "stock is low" not in spans
    assert "✖ charge" in spans
    assert "Traceback (most recent call last):" in stacks


def test_show_as_json_has_everything_by_id(shop: Shop, here: Here) -> None:
    url, run_id = shop
    document = json.loads(here("show", run_id, "--store", url, "--json").out)
    stored = find_trace(run_id, url)
    spans = {span["span_id"]: span for span in document["spans"]}
    (root,) = [span for span in document["spans"] if span["parent_span_id"] is None]

    assert document["run"]["run_id"] == run_id
    assert root["fields"] == {"shop": "coffee"}
    assert all(span["parent_span_id"] in spans for span in document["spans"] if span is not root)
    assert len(spans) == stored.summary.spans + 1
    assert [record["message"] for record in document["records"]] == [record.message for record in stored]
    assert {record["span_id"] for record in document["records"]} <= spans.keys()
    assert [child["name"] for child in document["child_runs"]] == ["invoices"]


def test_show_lists_attempts_and_how_they_ended(url: str, here: Here) -> None:
    async def attempt(fails: bool) -> None:
        async with Trace("job", name="nightly", sinks=[url]) as trace:
            trace.info("trying")
            if fails:
                raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        asyncio.run(attempt(fails=True))
    asyncio.run(attempt(fails=False))

    shown = here("show", "job", "--store", url).out

    first, second = (line for line in shown.splitlines() if line.startswith("attempt"))
    assert "RuntimeError: disk full" in first
    assert "✖" in first
    assert "✖" not in second
    assert "2 attempts" in shown


def test_show_folds_what_went_well_and_keeps_the_rest(url: str, here: Here) -> None:
    with Trace("big", sinks=[url]) as trace:
        for number in range(30):
            with trace.span(f"step {number}"):
                trace.info("looked")
                if number == 25:
                    trace.warning("odd one")

    folded, whole = (here("show", "big", "--store", url, "--limit", limit).out for limit in ("5", "0"))

    assert sum("step" in line for line in folded.splitlines()) == 6
    assert "odd one" in folded
    assert "… 24 spans more" in folded
    assert sum("step" in line for line in whole.splitlines()) == 30


def test_show_draws_spans_deeper_than_the_stack(url: str, here: Here) -> None:
    with Trace("deep", sinks=[url]) as trace:
        spans = [trace.span(f"level {depth}").__enter__() for depth in range(1500)]
        for span in reversed(spans):
            span.__exit__(None, None, None)

    shown = here("show", "deep", "--store", url)
    document = json.loads(here("show", "deep", "--store", url, "--json").out)

    assert shown.code == 0
    assert "(depth 1500) level 1499" in shown.out
    assert len(document["spans"]) == 1501


def test_show_writes_a_picture_that_loads_nothing(shop: Shop, here: Here, tmp_path: Path) -> None:
    shown = here("show", shop[1], "--store", shop[0], "--svg", f"{tmp_path}/show.svg")

    picture = (tmp_path / "show.svg").read_text("utf-8")
    assert (shown.code, shown.out) == (0, "")
    assert picture.startswith("<svg")
    assert "PaymentDeclinedError" in picture
    assert "url(&quot;http" not in picture
    assert 'url("http' not in picture


# -- stats -----------------------------------------------------------------------------------------


def test_stats_counts_what_is_stored(shop: Shop, here: Here) -> None:
    url, _ = shop
    summaries = find_traces(url)
    told = here("stats", "--store", url, "--json")
    document = json.loads(told.out)

    assert (told.code, told.err) == (0, "")
    assert document["runs"] == {"total": 2, "ok": 2}
    assert document["records"]["total"] == sum(summary.records for summary in summaries)
    assert document["records"]["error"] == sum(summary.errors for summary in summaries)
    assert document["records"]["warning"] == sum(summary.warnings for summary in summaries)
    assert document["spans"] == sum(summary.spans for summary in summaries)
    assert document["slowest_spans"][0]["name"] == "worker"
    assert {name["name"]: name["failed"] for name in document["span_names"]}["charge"] == 1
    assert document["errors"][0]["message"].startswith("order cancelled: ")
    assert document["first"] < document["last"]


COUNT_OPENED = """
import sys

from asynctrace.cli import main

opened = []


def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith("t.jsonl"):
        opened.append(arguments[0])


sys.addaudithook(look)
main(sys.argv[1:])
print(len(opened), file=sys.stderr)
"""


def test_stats_of_many_runs_in_one_file_does_not_read_it_for_each_of_them(tmp_path: Path) -> None:
    url = STORES["jsonl"].format(tmp_path)
    for number in range(20):
        with Trace(f"run-{number}", sinks=[url]) as trace:
            trace.info("hello")
    lines = (tmp_path / "t.jsonl").read_bytes()
    (tmp_path / "t.jsonl").write_bytes(lines + lines)  # a batch that was written again

    told = run("stats", "--store", url, "--json", program=COUNT_OPENED)

    document = json.loads(told.out)
    assert (document["runs"]["total"], document["records"]["total"]) == (20, 20)
    assert int(told.err) <= 2


def test_stats_for_people_and_its_limit(shop: Shop, here: Here) -> None:
    told = here("stats", "--store", shop[0], "--limit", "1").out

    assert told.startswith("runs     2  2 ok\n")
    assert sum("worker" in line for line in told.splitlines()) == 2
    assert "invoice" not in told


def test_show_finds_an_id_that_is_no_text(url: str, here: Here) -> None:
    """As the shell hands it over: bytes that are no UTF-8 come as lone surrogates."""
    with Trace("caf\udce9", sinks=[url]) as trace:
        trace.info("served")
    for wanted in ("caf\udce9", "af\udce9", "caf\\udce9"):
        shown = here("show", wanted, "--store", url)
        assert (shown.code, shown.err) == (0, "")
        assert "served" in shown.out


def test_messages_name_the_default_store_by_its_path(tmp_path: Path) -> None:
    told = run("demo", cwd=tmp_path)
    assert f"recorded in {tmp_path / 'asynctrace.db'}\n" in told.out
    told = run("show", "nope", cwd=tmp_path)
    assert (told.code, told.err) == (1, f"asynctrace: no run 'nope' in {tmp_path / 'asynctrace.db'}\n")
