"""Purges: caches are told of what was deleted, until they have heard it, whoever dies meanwhile."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imgproxy import purges as module
from imgproxy import spelling
from imgproxy.purges import Hook, Purges
from tests.plain import png, written
from tests.serving import COMMAND, environment

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
OTHER = "0" * 64


class Cache:
    """A cache of somebody else's, that notes what it is told; `status` is what it answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str, str]] = []
        self.status = 200
        self.port = 0

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[Cache]:
        cache = self

        class Ear(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if self.raw_requestline and self.parse_request():
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                    cache.heard.append((self.command, self.path, self.headers.get("Surrogate-Key", ""), body))
                    self.send_response(cache.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", port), Ear) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache().listening() as cache:
        yield cache


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hook(cache: Cache) -> Hook:
    headers = {"Surrogate-Key": "{hash}"}
    return Hook("PURGE", f"http://127.0.0.1:{cache.port}/tag/{{hash}}", headers, '{"tags":["{hash}"]}')


def test_a_cache_is_told_by_url_header_and_body(tmp_path: Path, cache: Cache) -> None:
    purges = Purges(tmp_path / "purges", [hook(cache)], settled=0)
    purges.add(HASH)
    until(lambda: purges.waiting() == 0)
    assert cache.heard == [("PURGE", f"/tag/{HASH}", HASH, f'{{"tags":["{HASH}"]}}')]
    purges.close()


def test_nobody_is_told_before_everybody_here_has_forgotten(tmp_path: Path, cache: Cache) -> None:
    began = time.time()
    purges = Purges(tmp_path / "purges", [hook(cache)], settled=0.5)
    purges.add(HASH)
    assert cache.heard == []
    purges.close()
    assert len(cache.heard) == 1
    assert time.time() >= began + 0.5


def test_what_was_not_heard_is_told_again(tmp_path: Path, cache: Cache) -> None:
    complaints: list[tuple[str, ...]] = []
    cache.status = 503
    purges = Purges(tmp_path / "purges", [hook(cache)], lambda *told: complaints.append(told), settled=0)
    purges.add(HASH)
    until(lambda: len(complaints) >= 2)
    assert set(complaints) == {(HASH, "answered 503")}
    cache.status = 200
    until(lambda: purges.waiting() == 0)
    purges.close()


def test_one_cache_that_is_away_keeps_nothing_from_another_and_hears_it_later(tmp_path: Path, cache: Cache) -> None:
    away = Cache()
    with away.listening():
        pass
    complaints: list[str] = []
    purges = Purges(tmp_path / "purges", [hook(away), hook(cache)], lambda _hash, why: complaints.append(why), settled=0)
    purges.add(HASH)
    until(lambda: len(complaints) >= 3)
    assert [path for _, path, _, _ in cache.heard] == [f"/tag/{HASH}"]
    purges.close()
    with away.listening(away.port):
        second = Purges(tmp_path / "purges", [hook(away), hook(cache)], settled=0)
        second.start()
        until(lambda: second.waiting() == 0)
        second.close()
    assert len(away.heard) == len(cache.heard) == 1


def test_what_is_deleted_again_is_told_again_to_who_has_heard_it(tmp_path: Path, cache: Cache) -> None:
    nobody = Hook("PURGE", "http://127.0.0.1:1/{hash}")
    purges = Purges(tmp_path / "purges", [nobody, hook(cache)], settled=0)
    for times in (1, 2):
        purges.add(HASH)
        until(lambda times=times: len(cache.heard) == times)  # type: ignore[misc]
    purges.close()


def test_what_an_older_version_has_left_is_told(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / HASH).write_bytes(b"..")
    purges = Purges(tmp_path, [Hook("PURGE", "http://127.0.0.1:1/{hash}"), hook(cache)])
    purges.start()
    until(lambda: (tmp_path / HASH).stat().st_size > 3)
    purges.close()
    assert (tmp_path / HASH).read_text() == f"...{hook(cache).word} "
    assert len(cache.heard) == 1


def test_what_nobody_hears_for_a_week_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIES", 3)
    complaints: list[str] = []
    (tmp_path / HASH).write_bytes(b"..")
    purges = Purges(tmp_path, [Hook("PURGE", "http://127.0.0.1:1/{hash}")], lambda _hash, why: complaints.append(why))
    purges.start()
    until(lambda: purges.waiting() == 0)
    assert len(complaints) == 1


def test_a_cache_that_hangs_holds_up_nobody_for_each_deletion(tmp_path: Path, cache: Cache) -> None:
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        never = Hook("PURGE", f"http://127.0.0.1:{hung.getsockname()[1]}/{{hash}}")
        purges = Purges(tmp_path / "purges", [never, hook(cache)], settled=0)
        began = time.monotonic()
        for number in range(20):
            purges.add(f"{number:064x}")
        purges.close()
        assert time.monotonic() - began < 15
    assert purges.waiting() == 20
    assert {path for _, path, _, _ in cache.heard} == {f"/tag/{number:064x}" for number in range(20)}


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("PURGE", "http://a..b/{hash}"),
        ("PURGE", f"http://{'a' * 64}.example/"),
        ("PÜRGE", "http://127.0.0.1:1/"),
        ("PURGE", "http://[::1/"),
    ],
)
def test_whatever_is_wrong_with_a_hook_it_is_told_and_the_others_hear(tmp_path: Path, cache: Cache, method: str, url: str) -> None:
    complaints: list[str] = []
    purges = Purges(tmp_path / "purges", [Hook(method, url), hook(cache)], lambda _hash, why: complaints.append(why), settled=0)
    purges.add(HASH)
    until(lambda: len(complaints) >= 2)
    assert all(complaints)
    assert len(cache.heard) == 1
    purges.close()


@pytest.mark.parametrize(
    "url", ["http://a..b/", "http://.a/", f"https://{'a' * 64}.example/{{hash}}", f"http://user:word@x.{'b' * 64}:80/"]
)
def test_an_address_that_no_host_has_is_no_setting(url: str) -> None:
    with pytest.raises(ValueError, match="a method and a URL"):
        spelling.call(f"PURGE {url}")


@pytest.mark.parametrize(
    "url", [f"http://user:{'w' * 70}@x/..", f"http://[::1]:80/{'a' * 70}", f"https://{'a' * 63}.example", "http://x?a..b"]
)
def test_any_other_address_is(url: str) -> None:
    assert spelling.call(f"PURGE {url}") == f"PURGE {url}"


def test_a_process_that_dies_leaves_it_to_the_next(tmp_path: Path) -> None:
    cache = Cache()
    with cache.listening():
        pass
    first = Purges(tmp_path / "purges", [hook(cache)], settled=0)
    first.add(HASH)
    first.add(OTHER)
    first.close()
    assert first.waiting() == 2
    with cache.listening(cache.port):
        second = Purges(tmp_path / "purges", [hook(cache)], settled=0)
        second.start()
        until(lambda: second.waiting() == 0)
        second.close()
    assert {path for _, path, _, _ in cache.heard} == {f"/tag/{HASH}", f"/tag/{OTHER}"}


def test_two_processes_tell_it_once(tmp_path: Path, cache: Cache) -> None:
    both = [Purges(tmp_path / "purges", [hook(cache)], settled=0.2) for _ in range(2)]
    for purges in both:
        purges.add(HASH)
    for purges in both:
        until(lambda of=purges: of.waiting() == 0)  # type: ignore[misc]
        purges.close()
    assert len(cache.heard) == 1


def test_a_cache_that_never_had_it_is_content_and_without_hooks_nothing_happens(tmp_path: Path, cache: Cache) -> None:
    cache.status = 404
    purges = Purges(tmp_path / "purges", [hook(cache)], settled=0)
    purges.add(HASH)
    purges.close()
    assert purges.waiting() == 0
    silent = Purges(tmp_path / "nothing", [])
    silent.add(HASH)
    silent.close()
    assert not (tmp_path / "nothing").exists()


def test_a_deletion_by_the_command_line_is_told_after_its_commit(tmp_path: Path, cache: Cache) -> None:
    import subprocess

    call = f"PURGE http://127.0.0.1:{cache.port}/{{hash}}"
    env = environment(tmp_path / "var", IMG_PURGE=call, IMG_PURGE_HEADERS="Surrogate-Key={hash}", IMG_PURGE_BODY="gone: {hash}")

    def run(*words: str) -> str:
        return subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    hash = run("put", str(written(tmp_path / "a.png", png(40, 40)))).strip().removesuffix(".png")
    run("commit")
    run("remove", hash)
    assert cache.heard == []
    run("commit")
    assert cache.heard == [("PURGE", f"/{hash}", hash, f"gone: {hash}")]
    assert "***" in run("config")


def test_trouble_with_the_disk_ends_nothing(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TROUBLED_PAUSE", 0.05)
    troubles: list[Path] = []
    whole = Purges._put_off

    def full(self: Purges, path: Path, pause: float) -> None:
        if not path.name.startswith("~") and len(troubles) < 2:
            troubles.append(path)
            raise OSError(errno.ENOSPC, "no room")
        whole(self, path, pause)

    monkeypatch.setattr(Purges, "_put_off", full)
    cache.status = 500
    purges = Purges(tmp_path / "purges", [hook(cache)], settled=0.0)
    purges.add("a" * 64)
    until(lambda: len(troubles) == 2)
    cache.status = 200
    until(lambda: not purges.waiting())
    purges.close()
