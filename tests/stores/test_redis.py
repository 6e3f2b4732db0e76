"""The tier in Redis: the conformance suite and the faults, on real servers."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from imgproxy.errors import StoreDown, StoreTrouble
from imgproxy.stores.redis import RedisTier, Terms
from tests.stores.conformance import BIG, HASH, Promises, body, keys, soon
from tests.stores.conformance import TestConformance as TestConformance

CALM = Terms(connect=5, read=10)
HASTY = Terms(connect=0.2, read=0.25, pause=0.2)
EDITIONS = itertools.count(1)


class Server:
    """A Redis on a port of its own, that keeps nothing on disk."""

    def __init__(self, directory: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket = directory / "s"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir", str(self._directory)]
        command = ["redis-server", *places, "--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        soon(self._listens, True, 30)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> Redis:
        """Somebody else who uses the same Redis."""
        return Redis(port=self.port, socket_timeout=30)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server that one test has for itself, and may break."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        server = Server(tmp_path, *options)
        started.append(server)
        server.start()
        return server

    _needed()
    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no test breaks."""
    _needed()
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def _needed() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: apt-get install redis-server")


@pytest.fixture(params=["tcp", "unix"])
def store(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisTier]:
    url = server.url if request.param == "tcp" else f"unix://{server.socket}?db=0"
    tier = RedisTier(url, next(EDITIONS), CALM)
    yield tier
    tier.close()


@pytest.fixture
def promises() -> Promises:
    return Promises(largest=CALM.largest)


def new_tier(server: Server, terms: Terms = CALM) -> RedisTier:
    """A tier in a Redis that has nothing else."""
    server.client().flushall()
    return RedisTier(server.url, next(EDITIONS), terms)


def raw_name(server: Server, key: str) -> bytes:
    """What the one key of that name is called in Redis."""
    (name,) = server.client().scan_iter(f"imgproxy:*:{key}")
    assert isinstance(name, bytes)
    return name


# ---- what is kept, and for how long


def test_what_is_too_large_is_forgotten_and_so_is_what_was_there_before(server: Server) -> None:
    tier = new_tier(server, Terms(largest=1000, connect=5, read=10))
    tier.put("k", io.BytesIO(b"x" * 1000))
    assert body(tier, "k") == b"x" * 1000
    assert tier.put("k", io.BytesIO(b"y" * 1001)) is True
    assert tier.get("k") is None
    assert keys(tier) == []


def test_create_of_what_is_too_large_leaves_what_is_there_alone(server: Server) -> None:
    tier = new_tier(server, Terms(largest=1000, connect=5, read=10))
    assert tier.put("k", io.BytesIO(b"y" * 1001), create=True) is True
    tier.put("k", io.BytesIO(b"old"))
    assert tier.put("k", io.BytesIO(b"y" * 1001), create=True) is False
    assert body(tier, "k") == b"old"


def test_of_what_is_too_large_no_more_is_read_than_shows_it(server: Server) -> None:
    source = io.BytesIO(BIG)
    new_tier(server).put("k", source)
    assert source.tell() == CALM.largest + 1


def test_more_words_than_the_tier_keeps_are_forgotten_with_their_object(server: Server) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"old"))
    assert tier.put("k", io.BytesIO(b"x"), note={"many": "x" * 1000}) is True
    assert tier.get("k") is None
    assert not tier.down


def test_an_object_expires(server: Server) -> None:
    tier = new_tier(server, Terms(expire=0.3, connect=5, read=10))
    tier.put("k", io.BytesIO(b"x"))
    soon(lambda: tier.get("k"), None, 30)
    assert tier.head("k") is None
    assert keys(tier) == []


def test_every_object_has_an_end_however_it_was_put(server: Server) -> None:
    tier = new_tier(server, Terms(expire=1000, connect=5, read=10))
    tier.put("a", io.BytesIO(b"x"))
    tier.put("b", io.BytesIO(b"x"), create=True)
    tier.put("a", io.BytesIO(b"y"))
    for item in tier.list():
        assert 900 < int(server.client().ttl(raw_name(server, item.key))) <= 1000


def test_an_edition_sees_nothing_of_another(server: Server) -> None:
    old, new = RedisTier(server.url, 1_000_001, CALM), RedisTier(server.url, 1_000_002, CALM)
    old.put("k", io.BytesIO(b"old"))
    assert new.get("k") is None
    new.put("k", io.BytesIO(b"new"))
    assert (body(old, "k"), body(new, "k")) == (b"old", b"new")
    assert {b"imgproxy:1000001:k", b"imgproxy:1000002:k"} <= set(server.client().scan_iter("*:k"))


def test_what_was_made_from_one_original_is_deleted_together(server: Server) -> None:
    tier = new_tier(server)
    other = "0" * 64 + "-1x.jpg"
    for key in (*(f"{HASH}-{width}x.jpg" for width in range(1, 1101)), HASH, other):
        tier.put(key, io.BytesIO(b"x"))
    assert tier.delete_prefix(f"{HASH}-") == 1100
    assert keys(tier) == [other, HASH]


@pytest.mark.parametrize("prefix", ["", "-", "*", HASH, HASH[:63] + "-", HASH[:63] + "?-", HASH + "-*"])
def test_no_other_prefix_is_deleted_by(server: Server, prefix: str) -> None:
    tier = new_tier(server)
    tier.put(HASH, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="not the beginning of derived names"):
        tier.delete_prefix(prefix)
    assert keys(tier) == [HASH]


# ---- listing


def test_a_listing_of_many_pages_is_in_order_and_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgproxy.stores.redis.shelf.PAGE", 7)
    tier = new_tier(server)
    names = sorted(f"{number * 7919 % 1000:03}" for number in range(100))
    for name in names:
        tier.put(name, io.BytesIO(b"x"))
    assert keys(tier) == names
    assert keys(tier, "", names[48]) == names[49:]
    assert keys(tier, "1") == [name for name in names if name.startswith("1")]


def test_what_strangers_put_there_is_left_out_of_a_listing(server: Server) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"x"))
    space = raw_name(server, "k").removesuffix(b"k")
    client = server.client()
    for name in (b"", b"K", b"\xff", b"a b", b"a//b"):
        client.set(space + name, b"x" * 100)
    client.set(space + b"short", b"x")
    client.rpush(space + b"list", b"x")
    assert keys(tier) == ["k"]


@pytest.mark.parametrize("prefix", ["*", "?", "[a-z]", "\\", "k*"])
def test_a_prefix_is_no_pattern(server: Server, prefix: str) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"x"))
    assert keys(tier, prefix) == []


# ---- rot


def _other_kind(client: Redis, name: bytes) -> None:
    client.delete(name)
    client.rpush(name, b"a list")


def _of_another_key(client: Redis, name: bytes) -> None:
    value = client.get(name)
    client.delete(name)
    client.set(name[:-1] + b"j", value)  # type: ignore[arg-type]


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Redis, bytes], None]:
    return lambda client, name: client.set(name, change(client.get(name)))  # type: ignore[arg-type, return-value]


def _flipped(at: int) -> Callable[[Redis, bytes], None]:
    return _changed(lambda value: value[:at] + bytes([value[at] ^ 1]) + value[at:][1:])


ROT = {
    "empty": _changed(lambda value: b""),
    "short": _changed(lambda value: value[:-1]),
    "half a head": _changed(lambda value: value[:20]),
    "long": _changed(lambda value: value + b"x"),
    "other": _changed(lambda value: b"x" * len(value)),
    "magic": _flipped(0),
    "length of the words": _flipped(7),
    "length of the bytes": _flipped(11),
    "time": _flipped(15),
    "check": _flipped(23),
    "digest": _flipped(30),
    "words": _flipped(45),
    "first byte": _flipped(-100),
    "last byte": _flipped(-1),
    "another kind": _other_kind,
}


@pytest.mark.parametrize("damage", ROT.values(), ids=ROT.keys())
def test_a_rotten_value_is_absent_and_removed(server: Server, damage: Callable[[Redis, bytes], None]) -> None:
    tier = new_tier(server)
    tier.put("rotten", io.BytesIO(b"x" * 100), type="image/png", note={"width": "640"})
    name = raw_name(server, "rotten")
    damage(server.client(), name)
    assert tier.get("rotten") is None
    assert server.client().exists(name) == 0
    assert not tier.down
    tier.put("rotten", io.BytesIO(b"good"))
    assert body(tier, "rotten") == b"good"


@pytest.mark.parametrize("damage", [ROT["short"], ROT["words"], ROT["length of the bytes"], ROT["another kind"]])
def test_create_is_not_kept_from_its_place_by_what_is_rotten(server: Server, damage: Callable[[Redis, bytes], None]) -> None:
    tier = new_tier(server)
    tier.put("spoilt", io.BytesIO(b"x" * 100))
    damage(server.client(), raw_name(server, "spoilt"))
    assert tier.head("spoilt") is None
    assert tier.put("spoilt", io.BytesIO(b"good"), create=True) is True
    assert body(tier, "spoilt") == b"good"


def test_a_value_under_another_key_is_none(server: Server) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"of k"))
    _of_another_key(server.client(), raw_name(server, "k"))
    assert tier.get("j") is None
    assert tier.head("j") is None


# ---- a full Redis


def test_a_full_redis_forgets_what_is_put_and_goes_on_giving_what_it_has(start: Callable[..., Server]) -> None:
    server = start("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    tier = new_tier(server)
    block = os.urandom(200_000)
    told = [tier.put(f"{number:02}", io.BytesIO(block)) for number in range(40)]
    assert all(told)
    kept = keys(tier)
    assert 0 < len(kept) < 40
    assert not tier.down
    assert body(tier, kept[0]) == block
    assert tier.put(kept[0], io.BytesIO(block[::-1])) is True
    assert body(tier, kept[0]) in (None, block[::-1])
    assert tier.delete(kept[1]) is True


def test_a_redis_that_evicts_stays_within_its_bound_and_takes_everything(start: Callable[..., Server]) -> None:
    server = start("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru")
    tier = new_tier(server)
    for number in range(100):
        key, block = f"{number:02}", os.urandom(200_000)
        assert tier.put(key, io.BytesIO(block)) is True
        assert body(tier, key) == block
    assert 0 < len(keys(tier)) < 50


def test_a_redis_that_only_gives_is_used_for_that(start: Callable[..., Server]) -> None:
    server = start()
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"body"))
    server.client().config_set("min-replicas-to-write", 1)
    assert tier.put("new", io.BytesIO(b"x")) is True
    assert tier.put("new", io.BytesIO(b"x"), create=True) is True
    assert tier.get("new") is None
    assert body(tier, "k") == b"body"
    with pytest.raises(StoreTrouble):
        tier.delete("k")
    assert body(tier, "k") == b"body"
    assert not tier.down


# ---- a Redis that is away


def assert_skipped(tier: RedisTier) -> None:
    """Many requests at once cost nothing, and neither deletion nor listing claims to have looked."""
    began = time.monotonic()
    for number in range(2000):
        assert tier.get(f"{number}") is None
        assert tier.put(f"{number}", io.BytesIO(b"x")) is True
    assert time.monotonic() - began < 20
    for ask in (lambda: tier.delete("k"), lambda: keys(tier), lambda: tier.delete_prefix(HASH + "-"), tier.check):
        with pytest.raises(StoreDown):
            ask()


def test_a_redis_that_hangs_costs_a_moment_once_and_is_used_again_when_it_goes_on(start: Callable[..., Server]) -> None:
    server = start()
    tier = new_tier(server, Terms(connect=0.2, read=0.25, pause=600))
    tier.put("k", io.BytesIO(b"body"))
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    assert tier.get("k") is None
    assert time.monotonic() - began < 5
    assert tier.down
    assert_skipped(tier)
    hasty = RedisTier(server.url, 1, HASTY)
    assert hasty.get("k") is None
    server.signal(signal.SIGCONT)
    soon(lambda: hasty.put("back", io.BytesIO(b"x")) and body(hasty, "back"), b"x", 30)
    assert not hasty.down


def test_a_redis_that_is_gone_costs_nothing_and_is_used_again_when_it_is_back(start: Callable[..., Server]) -> None:
    server = start()
    tier, patient = new_tier(server, HASTY), new_tier(server, Terms(pause=600))
    tier.put("k", io.BytesIO(b"body"))
    server.stop()
    assert tier.get("k") is None
    assert tier.put("k", io.BytesIO(b"body")) is True
    assert patient.head("k") is None
    assert_skipped(patient)
    server.start()
    soon(lambda: tier.put("k", io.BytesIO(b"again")) and body(tier, "k"), b"again", 30)
    assert keys(tier) == ["k"]


def test_a_tier_may_be_made_before_there_is_a_redis(start: Callable[..., Server]) -> None:
    server = start()
    server.stop()
    tier = RedisTier(server.url, 1, HASTY)
    assert tier.get("k") is None
    server.start()
    soon(lambda: tier.put("k", io.BytesIO(b"x")) and body(tier, "k"), b"x", 30)


def test_connections_that_redis_has_closed_are_replaced_without_a_miss(server: Server) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"body"))
    for _ in range(5):
        server.client().client_kill_filter(_type="normal", skipme=True)
        assert body(tier, "k") == b"body"


def test_a_tier_can_be_used_after_it_was_closed(server: Server) -> None:
    tier = new_tier(server)
    tier.put("k", io.BytesIO(b"body"))
    tier.close()
    assert body(tier, "k") == b"body"


def test_a_password_is_used_and_never_shown(start: Callable[..., Server]) -> None:
    server = start("--requirepass", "very-secret")
    right = RedisTier(f"redis://:very-secret@127.0.0.1:{server.port}/0", 1, CALM)
    right.check()
    right.put("k", io.BytesIO(b"body"))
    assert body(right, "k") == b"body"
    for url in (server.url, f"redis://:other-secret@127.0.0.1:{server.port}/0"):
        wrong = RedisTier(url, 1, HASTY)
        assert wrong.get("k") is None
        assert wrong.put("k", io.BytesIO(b"x")) is True
        with pytest.raises(StoreDown) as refused:
            wrong.check()
        assert "secret" not in f"{refused.value} {refused.value.__cause__}"
    assert body(right, "k") == b"body"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "redis://",
        "redis:///0",
        "http://127.0.0.1",
        "redis://h/x",
        "redis://h/0?secret=1",
        "unix://s",
        "redis://h/0#a",
    ],
)
def test_what_is_no_url_of_a_redis_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://") as refused:
        RedisTier(url, 1)
    assert "secret" not in str(refused.value)


# ---- many at once


def test_sixteen_threads_get_their_own_bytes(server: Server) -> None:
    tier = new_tier(server)
    bodies = {f"{number:02}": os.urandom(100 + 20_000 * (number % 12)) for number in range(40)}
    for key, data in bodies.items():
        tier.put(key, io.BytesIO(data))

    def use(turn: int) -> bool:
        key = f"{turn % 40:02}"
        if turn % 7 == 0:
            tier.put(key, io.BytesIO(bodies[key]))
        return body(tier, key) == bodies[key]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(use, range(4000)))


def test_a_fork_and_its_parent_get_their_own_bytes(server: Server) -> None:
    program = (
        "import io, os, sys\n"
        "from imgproxy.stores.redis import RedisTier, Terms\n"
        "tier = RedisTier(sys.argv[1], int(sys.argv[2]), Terms(connect=5, read=10))\n"
        "tier.put('before', io.BytesIO(b'before'))\n"
        "children = []\n"
        "for number in range(4):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        break\n"
        "    children.append(child)\n"
        "mine = str(len(children)).encode() * 1000\n"
        "for turn in range(300):\n"
        "    tier.put(f'{len(children)}', io.BytesIO(mine))\n"
        "    assert tier.get(f'{len(children)}').file.read() == mine\n"
        "    assert tier.get('before').file.read() == b'before'\n"
        "sys.exit(any(os.waitpid(child, 0)[1] for child in children) if child else 0)\n"
    )
    edition = next(EDITIONS)
    subprocess.run([sys.executable, "-c", program, server.url, str(edition)], timeout=100, check=True)
    assert keys(RedisTier(server.url, edition, CALM)) == ["0", "1", "2", "3", "4", "before"]
