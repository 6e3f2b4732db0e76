"""Lines and figures, by real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from imgproxy import observe

COUNT = """
import sys
from pathlib import Path
from imgproxy import observe
observe.configure("error", "json")
for n in range(int(sys.argv[1])):
    observe.record(observe.Answer("GET", "/", 200, "disk", 0.002, 10))
observe.record(observe.Answer("GET", "/", 503, "none", 0.5, 0, "Busy", ("redis",)))
observe.flush()
print("counted", flush=True)
sys.stdin.read()
"""

SERVER = """
import os
from imgproxy import observe
bind, workers, worker_class, threads = "127.0.0.1:{port}", 2, "gthread", 2
control_socket_disable = True
logger_class = observe.ServerLog
observe.configure("info", "json")
observe.adopt_logging("info")
def on_starting(server):
    from pathlib import Path
    observe.sweep(Path({directory!r}))
def child_exit(server, worker):
    observe.worker_gone(worker.pid)
"""

APPLICATION = """
import os
from imgproxy import observe
def application(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        body = observe.exposition()[0]
    else:
        observe.begin(environ.get("HTTP_X_REQUEST_ID"))
        observe.record(observe.Answer("GET", environ["PATH_INFO"], 200, "disk"))
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A process of its own: what it writes is what would be seen."""
    environ = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=True, timeout=60, env=environ, stdin=subprocess.DEVNULL
    )


def lines(code: str, format: str = "json", level: str = "info") -> list[dict[str, object]]:
    setup = f"from imgproxy import observe\nobserve.configure({level!r}, {format!r})\n"
    return [json.loads(line) for line in run(setup + code).stderr.splitlines()]


def figure(text: str | bytes, name: str) -> float:
    text = text.decode() if isinstance(text, bytes) else text
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE))


# ---- request ids


@pytest.mark.parametrize("sane", ["a", "0" * 64, "A.b_c-9"])
def test_a_sane_request_id_is_taken(sane: str) -> None:
    assert observe.begin(sane) == sane


@pytest.mark.parametrize("other", [None, "", "0" * 65, "a b", "a\n", "ä", "٣", '"'])
def test_any_other_request_id_is_replaced(other: str | None) -> None:
    made = observe.begin(other)
    assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", made)
    assert made != observe.begin(other)


# ---- lines


def test_a_request_is_one_json_line_with_its_id() -> None:
    (line,) = lines('observe.begin("req-1")\nobserve.record(observe.Answer("GET", "/x", 200, "disk", 0.0012345, 77, "", ("redis",)))')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(line.pop("timestamp")))
    assert line == {
        "level": "info",
        "event": "answered",
        "request": "req-1",
        "method": "GET",
        "target": "/x",
        "status": 200,
        "origin": "disk",
        "ms": 1.23,
        "bytes": 77,
        "troubles": ["redis"],
    }


@pytest.mark.parametrize("target", ["/" + "a" * 64 + "-1x1.jpg", '/"\\u00e9\\\\\n\x00\x7f', "/é\ud800", "/" + "x" * 5000])
def test_the_quick_spelling_of_a_line_says_what_the_thorough_one_does(target: str) -> None:
    answer = observe.Answer("GET", target, 200, "disk", 0.0012345, 12)
    quick, thorough = observe._line(1.75e9, "me-1", answer), observe._words(1.75e9, "me-1", answer)
    assert (json.loads(quick) if isinstance(quick, str) else quick) == thorough


def test_a_500_is_an_error_and_a_surprise_has_its_trace() -> None:
    surprise, answer = lines(
        'try:\n    {}["nowhere"]\nexcept KeyError as error:\n    observe.surprised(error, path="/x")\n'
        'observe.record(observe.Answer("GET", "/x", 500, error="KeyError"))'
    )
    assert (surprise["level"], surprise["event"], surprise["error"], surprise["path"]) == ("error", "surprised", "KeyError", "/x")
    assert "line 4, in <module>\n" in str(surprise["trace"])
    assert str(surprise["trace"]).endswith("\nKeyError: 'nowhere'\n")
    assert (answer["level"], answer["error"]) == ("error", "KeyError")


def test_strangers_text_never_begins_a_line_of_its_own() -> None:
    code = 'observe.record(observe.Answer("GET", "/a\\nb \\u2028 \\x1b[31m \\udcff", 404))'
    (line,) = lines(code)
    assert line["target"] == "/a\nb \u2028 \x1b[31m \udcff"
    written = run("from imgproxy import observe\nobserve.configure('info', 'text')\n" + code).stderr
    assert written.count(b"\n") == 1
    assert b"\x1b" not in written


def test_text_is_for_people() -> None:
    code = 'observe.begin("r1")\nobserve.record(observe.Answer("GET", "/x", 200, "disk", 0.001, 5))'
    written = run("from imgproxy import observe\nobserve.configure('info', 'text')\n" + code).stderr.decode()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} info answered request=r1 method=GET target=/x status=200 origin=disk ms=1.0 bytes=5\n", written
    )


def test_auto_is_json_where_there_is_no_terminal() -> None:
    (line,) = lines('observe.event("hello", {"path": __import__("pathlib").Path("/x")})', format="auto")
    assert (line["event"], line["path"]) == ("hello", "/x")


def test_lines_below_the_level_are_not_written() -> None:
    assert [line["event"] for line in lines('observe.event("low")\nobserve.event("high", level="error")', level="warning")] == ["high"]


def test_the_lines_of_other_libraries_take_our_form() -> None:
    code = """
import logging, warnings
observe.adopt_logging("info")
observe.begin("r2")
logging.getLogger("gunicorn.error").info("hello %s", "you")
logging.getLogger("other").info("unheard")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("other").exception("broken")
warnings.warn("careful")
"""
    hello, broken, warned = lines(code)
    assert (hello["event"], hello["logger"], hello["level"], hello["request"]) == ("hello you", "gunicorn.error", "info", "r2")
    assert broken["level"] == "error"
    assert "ZeroDivisionError" in str(broken["trace"])
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")


@pytest.mark.parametrize("text", ["a", '"', "\\", "\u00ff", "\u20ac"])
def test_no_line_is_longer_than_a_pipe_takes_whole(text: str) -> None:
    code = f"""
observe.begin("long")
try:
    raise ValueError({text!r} * 9000)
except ValueError as error:
    observe.surprised(error, path="/short")
observe.record(observe.Answer("GET", "/begin" + {text!r} * 4000 + "end", 404))
"""
    written = run("from imgproxy import observe\nobserve.configure('info', 'json')\n" + code).stderr.splitlines(keepends=True)
    assert len(written) == 2
    assert all(len(line) <= 4096 for line in written)
    surprised, answered = (json.loads(line) for line in written)
    assert answered["target"].startswith("/begin")
    assert answered["target"].endswith("end")
    assert (answered["status"], surprised["path"], surprised["request"]) == (404, "/short", "long")
    assert surprised["trace"].startswith("Traceback")


def test_what_comes_after_a_request_does_not_carry_its_id() -> None:
    code = """
import logging
observe.adopt_logging("info")
observe.begin("r3")
observe.event("during")
observe.record(observe.Answer("GET", "/", 200))
logging.getLogger("other").warning("another client spoke nonsense")
"""
    ids = {str(line["event"]): line.get("request") for line in lines(code)}
    assert ids == {"during": "r3", "answered": "r3", "another client spoke nonsense": None}


def test_a_log_that_cannot_be_written_fails_no_request() -> None:
    with Path("/dev/full").open("wb") as full:
        code = 'from imgproxy import observe\nobserve.record(observe.Answer("GET", "/", 200))\nprint("alive")'
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, timeout=60, check=True)
    assert done.stdout == b"alive\n"


# ---- figures


def test_one_process_shows_what_it_counted() -> None:
    code = """
from imgproxy import observe
observe.configure("error")
for answer in (
    observe.Answer("GET", "/", 200, "disk", 0.003, 10),
    observe.Answer("GET", "/", 206, "disk", 0.003, 5),
    observe.Answer("GET", "/", 200, "render", 7.0, 100, "", ("disk", "redis")),
    observe.Answer("GET", "/", 503, error="Busy"),
):
    observe.record(answer)
body, kind = observe.exposition()
assert kind.startswith("text/plain"), kind
print(body.decode())
"""
    seen = run(code).stdout
    assert figure(seen, 'imgproxy_answers_total{origin="disk",status="200"}') == 1
    assert figure(seen, 'imgproxy_answers_total{origin="disk",status="206"}') == 1
    assert figure(seen, 'imgproxy_answers_total{origin="none",status="503"}') == 1
    assert figure(seen, 'imgproxy_sent_bytes_total{origin="disk"}') == 15
    assert figure(seen, 'imgproxy_answer_seconds_bucket{le="5.0",origin="render"}') == 0
    assert figure(seen, 'imgproxy_answer_seconds_bucket{le="10.0",origin="render"}') == 1
    assert figure(seen, 'imgproxy_answer_seconds_count{origin="disk"}') == 2
    assert figure(seen, 'imgproxy_refusals_total{error="Busy"}') == 1
    assert figure(seen, 'imgproxy_tier_troubles_total{tier="redis"}') == 1


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A directory of figures, swept as a server does, by a process that is gone."""
    directory = tmp_path / "figures"
    directory.mkdir()
    (directory / "counter_1.db").write_bytes(b"of an earlier life")
    run("import sys\nfrom pathlib import Path\nfrom imgproxy import observe\nobserve.sweep(Path(sys.argv[1]))", str(directory))
    return directory


def counting(directory: Path, times: int) -> subprocess.Popen[bytes]:
    """A process that has counted, and waits."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    process = subprocess.Popen(
        [sys.executable, "-c", COUNT, str(times)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"counted\n"
    return process


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    process.communicate(timeout=30)
    return process.pid


def exposed(directory: Path) -> bytes:
    code = "from imgproxy import observe\nimport sys\nsys.stdout.buffer.write(observe.exposition()[0])"
    return run(code, PROMETHEUS_MULTIPROC_DIR=str(directory)).stdout


def test_the_figures_of_two_processes_add_up_and_outlive_them(node: Path) -> None:
    one, other = counting(node, 3), counting(node, 4)
    try:
        together = exposed(node)
    finally:
        gone = [stopped(one), stopped(other)]
    assert figure(together, 'imgproxy_answers_total{origin="disk",status="200"}') == 7
    assert figure(together, 'imgproxy_answer_seconds_bucket{le="0.0025",origin="disk"}') == 7
    assert figure(together, 'imgproxy_answer_seconds_count{origin="disk"}') == 7
    assert figure(together, 'imgproxy_refusals_total{error="Busy"}') == 2
    assert exposed(node) == together
    for pid in gone:
        tell = "import sys\nfrom imgproxy import observe\nobserve.worker_gone(int(sys.argv[1]))"
        run(tell, str(pid), PROMETHEUS_MULTIPROC_DIR=str(node))
        run(tell, str(pid), PROMETHEUS_MULTIPROC_DIR=str(node))
    assert sorted(exposed(node).splitlines()) == sorted(together.splitlines())
    assert not [file for pid in gone for file in node.glob(f"*_{pid}.db")]


def test_what_a_process_maps_into_memory_has_its_room_on_the_disk(node: Path) -> None:
    stopped(counting(node, 1))
    files = list(node.glob("*.db"))
    assert len(files) == 4
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size == 256 * 1024


def test_figures_that_find_no_room_stay_with_their_process(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from imgproxy import observe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
observe.sweep(Path(sys.argv[1]))
observe.record(observe.Answer("GET", "/", 200, "disk"))
sys.stdout.buffer.write(observe.exposition()[0])
"""
    done = run(code, str(tmp_path))
    assert figure(done.stdout, 'imgproxy_answers_total{origin="disk",status="200"}') == 1
    assert b"each process keeps its figures for itself" in done.stderr


def test_without_a_directory_a_sweep_warns_and_all_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = """
import sys
from pathlib import Path
from imgproxy import observe
observe.sweep(Path(sys.argv[1]))
print(len(observe.exposition()[0]) > 0)
"""
    done = run(code, str(tmp_path / "file" / "figures"))
    assert done.stdout == b"True\n"
    assert b"each process keeps its figures for itself" in done.stderr


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 3000, b"\x00\x10\x00\x00\x00\x00\x00\x00" + b"\xee" * 4088])
def test_a_process_that_leaves_garbage_hurts_neither_who_buries_it_nor_who_asks(node: Path, garbage: bytes) -> None:
    alive = counting(node, 3)
    try:
        (node / "counter_2.db").write_bytes(garbage)
        (node / "histogram_2.db").write_bytes(garbage)
        exposed(node)
        run("from imgproxy import observe\nobserve.worker_gone(2)", PROMETHEUS_MULTIPROC_DIR=str(node))
        assert not list(node.glob("*_2.db"))
        assert figure(exposed(node), 'imgproxy_answers_total{origin="disk",status="200"}') == 3
    finally:
        stopped(alive)


def test_a_process_that_begins_after_its_directory_was_removed_makes_it_anew(node: Path) -> None:
    code = """
import os, shutil, sys
from imgproxy import observe
observe.worker_gone(1)
shutil.rmtree(sys.argv[1])
observe.record(observe.Answer("GET", "/", 200, "disk"))
sys.stdout.buffer.write(observe.exposition()[0])
"""
    (node / "counter_1.db").write_bytes(bytes(64))
    shown = run(code, str(node), PROMETHEUS_MULTIPROC_DIR=str(node)).stdout
    assert figure(shown, 'imgproxy_answers_total{origin="disk",status="200"}') == 1


def test_what_cannot_be_counted_stops_neither_the_log_nor_what_follows(node: Path) -> None:
    code = """
import shutil, sys, time
from prometheus_client import Counter
from imgproxy import observe
from imgproxy.observe import figures
figures.of_this_process()
shutil.rmtree(sys.argv[1])
for number in range(3):
    observe.record(observe.Answer("GET", f"/{number}", 200, "disk"))
    time.sleep(0.3)
"""
    told = run(code, str(node), PROMETHEUS_MULTIPROC_DIR=str(node)).stderr
    events = [json.loads(line) for line in told.splitlines() if line.startswith(b"{")]
    assert [line["target"] for line in events if line["event"] == "answered"] == ["/0", "/1", "/2"]
    assert [line["error"] for line in events if line["event"] == "surprised"].count("FileNotFoundError") >= 2


def test_a_process_whose_directory_was_removed_shows_its_own_figures(node: Path) -> None:
    code = """
import shutil, sys
from imgproxy import observe
observe.record(observe.Answer("GET", "/", 200, "disk"))
observe.flush()
shutil.rmtree(sys.argv[1])
sys.stdout.buffer.write(observe.exposition()[0])
"""
    done = run(code, str(node), PROMETHEUS_MULTIPROC_DIR=str(node))
    assert figure(done.stdout, 'imgproxy_answers_total{origin="disk",status="200"}') == 1
    assert b"the figures of other processes cannot be read" in done.stderr


# ---- under gunicorn


def got(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            got(port, "/metrics")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("no answer within 30 s")


def test_under_gunicorn_figures_survive_a_killed_worker_and_every_line_is_json(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "gunicorn.conf.py").write_text(SERVER.format(port=port, directory=str(tmp_path / "figures")))
    (tmp_path / "small.py").write_text(APPLICATION)
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "gunicorn", "small:application"], cwd=tmp_path, stderr=log, stdout=log)
    try:
        until_it_answers(port)
        pids = [int(got(port, "/x")) for _ in range(20)]
        assert figure(got(port, "/metrics"), 'imgproxy_answers_total{origin="disk",status="200"}') == 20
        os.kill(pids[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while list((tmp_path / "figures").glob(f"*_{pids[0]}.db")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert figure(got(port, "/metrics"), 'imgproxy_answers_total{origin="disk",status="200"}') == 20
        assert not list((tmp_path / "figures").glob(f"*_{pids[0]}.db"))
    finally:
        server.terminate()
        server.wait(timeout=40)
    written = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert sum(line["event"] == "answered" for line in written) == 20
    assert any(line.get("logger") == "gunicorn.error" and "Booting worker" in line["event"] for line in written)
