"""nginx and gunicorn as one command: stopped, reloaded, killed, under load."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from socket import socket

import pytest

from imgproxy import config
from imgproxy.edge.nginx import folder
from imgproxy.edge.together import Lines, write_configuration
from tests.edging import edging, nginx
from tests.plain import png, written
from tests.readers import Readers, until
from tests.serving import COMMAND, Server, environment, free_port


def children(pid: int) -> dict[int, str]:
    """The children of a process, and what they are."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {}
    for child in listed:
        with suppress(OSError):  # it has just gone
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text()
    return found


def child(server: Server, word: str) -> int:
    return next(pid for pid, command in children(server.process.pid).items() if word in command)


def family(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    return [one for child in children(pid) for one in (child, *children(child))]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def put(server: Server) -> str:
    (name,) = server.put(written(server.data / "a.png", png(1200, 1200)))
    return name.removesuffix(".png")


def test_a_workers_death_is_not_the_clients(tmp_path: Path) -> None:
    """So many readers, that several lines are kept which all die at once."""
    with edging(tmp_path / "var") as server:
        hash = put(server)
        with Readers(server.address, hash, count=12) as readers:
            for _ in range(6):
                readers.more(60)
                gunicorn = child(server, "gunicorn")
                for worker in children(gunicorn):
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                until(lambda of=gunicorn: len(children(of)) >= 2, "no new workers")  # type: ignore[misc]
            readers.more(20)
        assert set(readers.answers) == {"200"}


def test_new_settings_are_taken_up_without_a_lost_request(tmp_path: Path) -> None:
    conf = written(tmp_path / "settings.toml", b'cors = "https://one.example"\n')
    with edging(tmp_path / "var", IMG_CONFIG=str(conf)) as server:
        hash = put(server)

        def origin(suffix: str) -> str:
            answer = server.get(f"/{hash}{suffix}")
            assert answer.status == 200, answer
            return answer.headers["access-control-allow-origin"]

        assert origin("-50x50.png") == origin(".png") == "https://one.example"
        with Readers(server.address, hash) as readers:
            readers.more(20)
            conf.write_text('cors = "https://two.example"\n')
            server.process.send_signal(signal.SIGHUP)
            until(lambda: origin("-50x50.png") == origin(".png") == "https://two.example", "the old settings stay")
            conf.write_text('policy = "whatever"\n')
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "the old ones stay" in (server.data / "server.log").read_text(), "nobody complains")
            readers.more(20)
        assert set(readers.answers) == {"200"}
        assert origin("-50x50.png") == "https://two.example"


def test_what_is_in_flight_is_finished_when_it_is_told_to_stop(tmp_path: Path) -> None:
    with edging(tmp_path / "var") as server:
        hash = put(server)
        answers: list[int] = []
        targets = [f"/{hash}-{side}x{side}-blur_300.avif" for side in range(900, 904)]
        threads = [threading.Thread(target=lambda target=target: answers.append(server.get(target).status)) for target in targets]
        for thread in threads:
            thread.start()
        lock = server.data / "run" / "flights.lock"
        until(lambda: lock.exists() and f":{lock.stat().st_ino} " in Path("/proc/locks").read_text(), "nobody renders")
        both = list(children(server.process.pid))
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(60) == 0
        assert answers == [200] * 4
        assert not any(map(is_alive, both))


@pytest.mark.parametrize("word", ["nginx", "gunicorn"])
def test_when_one_of_them_dies_both_are_gone_and_it_is_told(tmp_path: Path, word: str) -> None:
    with edging(tmp_path / "var") as server:
        until(lambda: len(family(server.process.pid)) >= 6, "not everybody is there")
        both = family(server.process.pid)
        os.kill(child(server, word), signal.SIGKILL)
        assert server.process.wait(60) == 1
        until(lambda: not any(map(is_alive, both)), "somebody lives on", 10)
        assert f"{word} is gone" in (server.data / "server.log").read_text()


def test_nothing_outlives_the_command(tmp_path: Path) -> None:
    with edging(tmp_path / "var") as server:
        both = family(server.process.pid)
        assert len(children(server.process.pid)) == 2
        server.process.kill()
        server.process.wait(60)
        until(lambda: not any(map(is_alive, both)), "somebody lives on")


def test_a_second_one_over_the_same_directory_is_refused(tmp_path: Path) -> None:
    with edging(tmp_path / "var") as server:
        env = {**server.env, "IMG_BIND": "127.0.0.1:1", "IMG_EDGE": "off"}
        done = subprocess.run([COMMAND, "serve", "--edge"], env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, "another nginx and gunicorn" in done.stderr) == (1, True)
        assert server.get("/healthz").status == 200


def test_a_port_that_is_taken_is_told_and_nothing_stays(tmp_path: Path) -> None:
    with edging(tmp_path / "var") as server:
        env = environment(tmp_path / "other", IMG_BIND=f"127.0.0.1:{server.port}")
        done = subprocess.run([COMMAND, "serve", "--edge"], env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1
        assert "Address already in use" in done.stdout + done.stderr


def test_nobody_is_let_in_while_a_configuration_is_judged(tmp_path: Path) -> None:
    program, port = nginx(), free_port()
    settings = config.load(None, environment(tmp_path, IMG_BIND=f"127.0.0.1:{port},[::1]:{port}", IMG_EDGE="nginx"))
    folder(settings).mkdir(parents=True)
    judged = threading.Event()
    came: list[int] = []

    def come() -> None:
        while not judged.is_set():
            with socket() as line:
                came.append(line.connect_ex(("127.0.0.1", port)))

    visitor = threading.Thread(target=come)
    visitor.start()
    try:
        for _ in range(10):
            write_configuration(settings, program)
    finally:
        judged.set()
        visitor.join()
    assert set(came) == {errno.ECONNREFUSED}
    assert f"listen 127.0.0.1:{port};" in (folder(settings) / "nginx.conf").read_text()
    assert not list(folder(settings).glob("judged*"))


def test_without_nginx_edge_is_a_mistake_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgproxy.edge import together
    from imgproxy.errors import BadSettings

    monkeypatch.setattr(together, "_PLACES", str(tmp_path))
    with pytest.raises(BadSettings, match="nginx is not installed here"):
        together.nginx()


def test_a_socket_alone_is_for_an_nginx_of_ones_own(tmp_path: Path) -> None:
    program = nginx()
    env = environment(tmp_path / "var", IMG_EDGE="socket", IMG_BIND=f"unix:{tmp_path}/front.sock")
    server = subprocess.Popen([COMMAND, "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until((tmp_path / "var" / "run" / "gunicorn.sock").exists, "gunicorn does not listen")
        conf = subprocess.run([COMMAND, "nginx"], env=env, capture_output=True, check=True, timeout=60).stdout
        (tmp_path / "var" / "run" / "nginx").mkdir()
        written(tmp_path / "nginx.conf", conf)
        words = [program, "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;" + " user root;" * (os.geteuid() == 0)]
        own = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            until((tmp_path / "front.sock").exists, "nginx does not listen")
            ask = ["--unix-socket", str(tmp_path / "front.sock"), "http://x/healthz"]
            until(lambda: _said(tmp_path / "front.sock").startswith(b"HTTP/1.1 200 "), f"no answer to {ask}")
        finally:
            own.terminate()
            own.wait(60)
    finally:
        server.terminate()
        server.wait(60)


def _said(path: Path) -> bytes:
    import socket

    with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return sock.recv(1000)
    return b""


def test_lines_of_nginx_pass_whole_and_its_complaints_become_lines_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    from imgproxy import observe

    observe.configure("info", "json")
    written_pieces: list[bytes] = []
    lines = Lines(written_pieces.append)
    lines.add(b'{"a":1}\n{"b"')
    assert written_pieces == [b'{"a":1}\n']
    lines.add(b":2}\n" + (b'{"long":"' + b"x" * 4000 + b'"}\n') * 3)
    assert b"".join(written_pieces).count(b"\n") == 5
    assert all(len(piece) <= 4096 for piece in written_pieces)
    lines.add(b"2026/11/20 20:00:00 [error] 5#5: *1 connect() failed\n")
    assert '"level":"error"' in capfd.readouterr().err
