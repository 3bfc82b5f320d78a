"""What the command prints where: colours, pages, escapes, exit codes."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from cli_kit import SECONDS, Here, clean_environment, run

from asynctrace import Trace

ESCAPE = "\x1b["


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/t.db"


@pytest.fixture
def store(url: str) -> str:
    with Trace("run-1", name="nightly", sinks=[url]) as trace:
        for number in range(40):
            trace.info("line %d of a run that is longer than the screen", number)
        trace.error("it failed", reason="broken")
    return url


def on_terminal(*arguments: str, columns: int = 100, rows: int = 24, **env: str) -> tuple[int, str]:
    """Exit code and output of the command on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "asynctrace", *arguments],
        env=clean_environment(TERM="xterm-256color", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:  # Linux says EIO where the other end is closed
        pass
    os.close(ours)
    return process.wait(SECONDS), told.decode().replace("\r\n", "\n")


# -- colours ---------------------------------------------------------------------------------------


def test_a_pipe_gets_neither_colours_nor_cuts(store: str) -> None:
    told = run("show", "run-1", "--store", store)

    assert told.code == 0
    assert "\x1b" not in told.out
    assert "s INFO     line 0 of a run that is longer than the screen" in told.out


def test_force_color_gives_a_pipe_colours_and_no_color_wins(store: str) -> None:
    forced = run("show", "run-1", "--store", store, env={"FORCE_COLOR": "1"})
    denied = run("show", "run-1", "--store", store, env={"FORCE_COLOR": "1", "NO_COLOR": "1"})

    assert ESCAPE in forced.out
    assert "\x1b" not in denied.out


def test_a_terminal_gets_colours_unless_no_color_is_set(store: str) -> None:
    coloured = on_terminal("runs", "--store", store, "--no-pager")
    plain = on_terminal("runs", "--store", store, "--no-pager", NO_COLOR="1")

    assert coloured[0] == plain[0] == 0
    assert ESCAPE in coloured[1]
    assert "\x1b" not in plain[1]


def test_a_wide_terminal_is_used_and_a_narrow_one_is_kept_to(url: str) -> None:
    with Trace("run-1", sinks=[url]) as trace:
        trace.info(" ".join(["word"] * 40))

    wide = on_terminal("show", "run-1", "--store", url, columns=300, NO_COLOR="1")[1]
    narrow = on_terminal("show", "run-1", "--store", url, columns=60, NO_COLOR="1")[1]

    assert max(map(len, wide.splitlines())) > 200
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.count("word") == 40


# -- pages -----------------------------------------------------------------------------------------


def test_long_output_goes_to_the_users_pager_on_a_terminal_only(store: str, tmp_path: Path) -> None:
    page = tmp_path / "page"
    pager = f"tee '{page}'"

    code, told = on_terminal("show", "run-1", "--store", store, PAGER=pager)
    paged = page.read_text("utf-8")
    page.unlink()
    for arguments in (["show", "run-1", "--no-pager"], ["runs"], ["show", "run-1", "--json"]):
        assert on_terminal(*arguments, "--store", store, PAGER=pager)[0] == 0
    piped = run("show", "run-1", "--store", store, env={"PAGER": pager})

    assert code == 0
    assert "line 39" in paged
    assert "line 39" in told
    assert not page.exists()
    assert "line 39" in piped.out


def test_a_pager_that_is_not_there_or_leaves_early_loses_nothing(store: str) -> None:
    missing = on_terminal("show", "run-1", "--store", store, PAGER="no-such-pager-here")
    early = on_terminal("show", "run-1", "--store", store, PAGER="true")

    assert missing[0] == early[0] == 0
    assert "line 39" in missing[1]
    assert "Traceback" not in missing[1] + early[1]


# -- escapes ---------------------------------------------------------------------------------------


HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp \x00 \x7f [bold]not markup[/bold] :smile: \\end"


@pytest.mark.parametrize("command", ["show", "tail", "runs", "stats"])
@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_control_characters_never_reach_the_terminal(
    tmp_path: Path, here: Here, command: str, kind: str
) -> None:
    url = f"{kind}:{tmp_path}/store"
    bound = {HOSTILE: HOSTILE}
    with (
        Trace(f"run {HOSTILE}", name=HOSTILE, sinks=[url], fields=bound) as trace,
        trace.span(HOSTILE, x=HOSTILE),
    ):
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            trace.exception(HOSTILE, **{HOSTILE: [HOSTILE]})

    told = here(command, *(["latest"] if command == "show" else []), "--store", url)
    document = here(command, *(["latest"] if command == "show" else []), "--store", url, "--json")

    assert told.code == document.code == 0
    assert not {character for character in told.out if not character.isprintable()} - {"\n"}
    assert "\\x1b[2J" in told.out
    assert "[bold]not markup[/bold] :smile:" in told.out
    assert document.out.isascii()
    assert json.loads(document.out.splitlines()[0] if command == "tail" else document.out)


def test_an_ascii_output_gets_escapes_instead_of_an_error(url: str) -> None:
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("naïve ✓")

    told = run("show", "run-1", "--store", url, env={"PYTHONIOENCODING": "ascii"})

    assert told.code == 0
    assert "na\\xefve \\u2713" in told.out


# -- exit codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_met_with_silence(url: str, unbuffered: str) -> None:
    with Trace("run-1", sinks=[url]) as trace:
        for number in range(3000):
            trace.info("a line that together with the others fills any pipe %d %s", number, "x" * 100)
    command = [sys.executable, "-m", "asynctrace", "tail", "-n", "3000", "--store", url]

    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(PYTHONUNBUFFERED=unbuffered),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(SECONDS), said) == (141, b"")


FULL = Path("/dev/full")
PRINTING = (
    "runs",
    "runs --json",
    "show latest",
    "tail",
    "tail -f",
    "tail --json",
    "stats",
    "verify",
    "prune --days 1000",
    "spool",
    "dead",
    "recover",
    "demo --seed 1",
    "--help",
    "--version",
    "show --help",
)


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", PRINTING)
def test_an_output_that_takes_nothing_is_one_line(
    store: str, tmp_path: Path, command: str, unbuffered: str
) -> None:
    environment = clean_environment(
        PYTHONUNBUFFERED=unbuffered, ASYNCTRACE_SINKS=store, ASYNCTRACE_STATE_DIR=str(tmp_path / "state")
    )
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asynctrace", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=SECONDS,
            text=True,
        )
    said = "asynctrace: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (7, said)


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full")
def test_what_cannot_be_said_on_standard_error_changes_no_exit_code(store: str) -> None:
    for words, code in ((["runs"], 0), (["show", "nope"], 1), (["nope"], 2), ([], 2)):
        with FULL.open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "asynctrace", *words],
                stdout=subprocess.DEVNULL,
                stderr=full,
                env=clean_environment(ASYNCTRACE_SINKS=store),
                timeout=SECONDS,
            )
        assert done.returncode == code
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asynctrace", "runs"],
            stdout=full,
            stderr=full,
            env=clean_environment(ASYNCTRACE_SINKS=store),
            timeout=SECONDS,
        )
    assert done.returncode == 7


@pytest.mark.skipif(os.name == "nt", reason="a shell that closes descriptors")
def test_streams_that_are_closed_from_the_beginning(store: str) -> None:
    def closed(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "asynctrace", *words],
            capture_output=True,
            env=clean_environment(ASYNCTRACE_SINKS=store),
            timeout=SECONDS,
            text=True,
        )

    done = closed(">&-", "runs")
    assert (done.returncode, done.stderr) == (
        7,
        "asynctrace: cannot write to standard output: it is closed\n",
    )
    done = closed("2>&-", "show", "nope")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_state_directory_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    name = "n" * 300  # no file system takes it
    for command in ("dead", "spool", "dead purge"):
        told = run(*command.split(), cwd=tmp_path, env={"ASYNCTRACE_STATE_DIR": str(tmp_path / name)})
        assert (told.code, told.out) == (3, "")
        assert told.err.startswith("asynctrace: ")
        assert name in told.err
        assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", ["runs", "show latest", "tail", "tail -f", "stats"])
@pytest.mark.parametrize(
    "store", ["sqlite:{}/none.db", "file:{}/none", "sqlite:{}/text", "file:{}/none.jsonl"]
)
def test_a_store_that_cannot_be_read_is_one_line_that_names_it(
    tmp_path: Path, here: Here, command: str, store: str
) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at\n" * 20)
    url = store.format(tmp_path)

    told = here(*command.split(), "--store", url)

    assert (told.code, told.out) == (3, "")
    assert told.err.count("\n") == 1
    assert url.partition(":")[2] in told.err
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_cannot_be_read_in_a_real_process(tmp_path: Path) -> None:
    told = run("runs", cwd=tmp_path)

    assert (told.code, told.out) == (3, "")
    assert told.err.startswith("asynctrace: cannot read the store: ")
    assert "asynctrace.db" in told.err
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no-such-command"], "no-such-command"),
        (["runs", "--no-such-option"], "--no-such-option"),
        (["runs", "--limit", "many"], "--limit"),
        (["runs", "--level", "loud"], "'loud'"),
        (["runs", "--since", "yesterday-ish"], "'yesterday-ish'"),
        (["runs", "--field", "no-equals"], "'no-equals'"),
        (["runs", "--store", "nonsense://x"], "nonsense"),
        (["runs", "--store", "console:"], "console:"),
        (["demo", "--sinks", "sqlite:./x.db?no_such=1"], "no_such"),
        (["show"], "RUN"),
        (["show", "one", "two"], "two"),
        (["recover", "--timeout", "-1"], "--timeout"),
        (["dead", "show", "--limit", "-1"], "--limit"),
        (["tail", "-n"], "-n"),
        (["prune", "--days", "x"], "--days"),
    ],
)
def test_a_wrong_command_line_is_named(
    here: Here, arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    told = here(*arguments)

    assert (told.code, told.out) == (2, "")
    assert named in told.err
    assert told.err.startswith("asynctrace: ")
    assert told.err.count("\n") == 1


def test_no_command_is_the_help_beside_the_output(here: Here) -> None:
    told = here()

    assert (told.code, told.out) == (2, "")
    assert "Commands:" in told.err


def test_a_wrong_setting_is_named() -> None:
    told = run("runs", env={"ASYNCTRACE_SINKS": "nonsense"})

    assert told.code == 2
    assert "nonsense" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_names_what_to_install(missing: str, store: str) -> None:
    # None in sys.modules is how the import system itself marks what must not be found.
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from asynctrace.cli import main; "
        f"sys.exit(main(['runs', '--store', {store!r}]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=clean_environment(),
    )

    assert (done.returncode, done.stdout) == (4, "")
    assert "pip install 'asynctrace[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_torn_line_is_told_and_the_rest_is_shown(tmp_path: Path, here: Here) -> None:
    url = f"file:{tmp_path}/t.jsonl"
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("whole")
    with (tmp_path / "t.jsonl").open("a") as file:
        file.write('{"seq":99,"producer":"ab')

    listed, shown, tailed, counted = (
        here(*arguments, "--store", url) for arguments in (["runs"], ["show", "run-1"], ["tail"], ["stats"])
    )

    assert [told.code for told in (listed, shown, tailed, counted)] == [0, 0, 0, 0]
    assert "torn" in listed.err
    assert "torn" in shown.out
    assert "whole" in shown.out
    assert "torn" in tailed.err
    assert "torn" in counted.out


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"seq":0,"producer":"ab'], ids=repr)
@pytest.mark.parametrize("name", ["t.jsonl", "logs/run_id=run-1/events.jsonl"])
def test_a_store_without_one_whole_line_is_told(
    tmp_path: Path, here: Here, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    url = f"file:{tmp_path / name.split('/')[0]}"

    listed, documents, shown, tailed, counted = (
        here(*arguments, "--store", url)
        for arguments in (["runs"], ["runs", "--json"], ["show", "run-1"], ["tail"], ["stats"])
    )

    assert [told.code for told in (listed, documents, shown, tailed, counted)] == [0, 0, 1, 0, 0]
    assert (listed.out, documents.out) == ("", "[]\n")
    for told in (listed.err, documents.err, shown.err, tailed.err, counted.out):
        assert ("line 1 torn" in told) == bool(content)
    assert shown.err.splitlines()[-1].startswith("asynctrace: ")


# -- start -----------------------------------------------------------------------------------------


def test_help_and_version_do_without_what_they_do_not_need() -> None:
    program = (
        "import sys; from asynctrace.cli import main; code = main([sys.argv[1]]); "
        "heavy = {'rich', 'sqlite3', 'asyncio', 'asynctrace.pipeline', 'aiosqlite'} & set(sys.modules); "
        "print(code, sorted(heavy), file=sys.stderr)"
    )

    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, option],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            # Coverage, which follows into new interpreters, would bring modules of its own.
            env={key: value for key, value in clean_environment().items() if not key.startswith("COV")},
        )
        assert done.stderr == "0 []\n"
        assert "asynctrace" in done.stdout
