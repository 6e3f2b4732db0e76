"""The store in a bucket: the conformance suite and the faults, over Swift's own S3.

Azure's protocol is spoken for real as well where Azurite is: `npm install azurite`, and in the environment
`AZURITE=node_modules/.bin/azurite-blob`. Of Google's nothing is tried but how its URL is read: no emulator has the protocol in question.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote

import pytest

from imgproxy.errors import BadSettings, StoreDown, StoreFull, StoreLied, StoreTrouble
from imgproxy.stores.cloud import PIECE, WHOLE, CloudStore, Patience
from imgproxy.stores.cloud.bucket import Bucket, connected
from imgproxy.stores.swift import Container, Swift, SwiftStore
from imgproxy.stores.swift.cluster import Line
from tests.cutter import Cutter, Rule
from tests.stores.conformance import HASH, Cut, Promises, body, keys
from tests.stores.conformance import TestConformance as TestConformance
from tests.swift_fixtures import new_store
from tests.swift_fixtures import swift as swift
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import SwiftBox

PATIENCE = Patience(connect=1.0, read=10.0)
HASTY = Patience(connect=0.5, read=1.0)
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Service:
    """A service that listens: the scheme of its URLs, its variables, and how a bucket is made."""

    scheme: str
    options: dict[str, str]
    make: Callable[[str], object]
    create: bool

    def bucket(self) -> str:
        """The URL of a bucket that was not there before."""
        name = "t-" + uuid.uuid4().hex
        self.make(name)
        return f"{self.scheme}://{name}"


def s3_options(port: int, secret: str = "testing") -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test:tester",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_PROFILE": "nobody asks for it",
    }


@pytest.fixture(scope="module")
def s3(swift_box_1: SwiftBox, swift: Swift) -> Service:
    return Service("s3", s3_options(swift_box_1.info["port"]), lambda name: new_store(swift, Container(name)), create=False)


def tell(swift: Swift, method: str, path: str, headers: dict[str, str]) -> None:
    """One request to Swift by its own protocol, without a body."""

    def ask(line: Line) -> int:
        request = urllib.request.Request(
            f"{line.url}/{path}", method=method, headers=headers | {"X-Auth-Token": line.token, "Content-Length": "0"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)

    swift.ask(ask, path)


def make_azure_container(address: str, name: str) -> None:
    now = formatdate(usegmt=True)
    empty = "\n" * 12
    said = f"PUT{empty}x-ms-date:{now}\nx-ms-version:2021-08-06\n/devstoreaccount1/devstoreaccount1/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(AZURITE_KEY), said.encode(), hashlib.sha256).digest()).decode()
    headers = {
        "x-ms-date": now,
        "x-ms-version": "2021-08-06",
        "Authorization": f"SharedKey devstoreaccount1:{signature}",
        "Content-Length": "0",
    }
    request = urllib.request.Request(f"{address}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = str(tmp_path_factory.mktemp("azurite"))
    command = [os.environ["AZURITE"], "--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", place]
    with subprocess.Popen([*command, "--skipApiVersionCheck", "--silent", "--disableTelemetry"], stdout=subprocess.DEVNULL) as process:
        try:
            _listening(port)
            address = f"http://127.0.0.1:{port}/devstoreaccount1"
            options = {
                "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
                "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
                "AZURE_STORAGE_ENDPOINT": address,
            }
            yield Service("az", options, lambda name: make_azure_container(address, name), create=True)
        finally:
            process.kill()


def _listening(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module", params=["s3", *(["azure"] if os.environ.get("AZURITE") else [])])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(service: Service) -> CloudStore:
    return CloudStore(service.bucket(), service.options, PATIENCE)


@pytest.fixture
def promises(service: Service) -> Promises:
    return Promises(atomic_create=service.create, lag=5)


# ---- which bucket


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://photos", Bucket("s3", "photos")),
        ("s3://photos/", Bucket("s3", "photos")),
        ("s3://photos/base", Bucket("s3", "photos", "base")),
        ("gs://my.photos/a/B_c/", Bucket("gs", "my.photos", "a/B_c")),
        ("az://photos/base", Bucket("az", "photos", "base")),
        ("az://$web", Bucket("az", "$web")),
    ],
)
def test_a_url_says_service_bucket_and_prefix(url: str, bucket: Bucket) -> None:
    assert Bucket.of(url) == bucket


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photos",
        "s3:photos",
        "s3://",
        "s3:///base",
        "http://photos",
        "swift://photos",
        "s3://key:secret@photos",
        "s3://photos:9000",
        "s3://photos/a//b",
        "s3://photos/../a",
        "s3://photos/.",
        "s3://photos/a?endpoint=secret",
        "s3://photos/#secret",
        "s3://Photos",
        "s3://photos/ä",
    ],
)
def test_any_other_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        CloudStore(url, {})
    assert "secret" not in str(refused.value)


def test_the_variables_of_each_service_become_its_settings() -> None:
    google = connected(Bucket.of("gs://photos/base"), {"GOOGLE_BEARER_TOKEN": "t", "AWS_REGION": "x"}, Patience(), 5)
    assert (google.config["bucket"], google.prefix, google.config["bearer_token"]) == ("photos", "base", "t")
    azure = connected(Bucket.of("az://photos"), {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}, Patience(), 5)
    assert (azure.config["container_name"], azure.config["account_name"], azure.config["account_key"]) == ("photos", "me", "a2V5")
    amazon = connected(Bucket.of("s3://photos/a"), {"AWS_ENDPOINT_URL": "https://example.org", "AWS_PROFILE": "x"}, Patience(), 5)
    assert (amazon.config["bucket"], amazon.prefix, amazon.config["endpoint"]) == ("photos", "a", "https://example.org")
    assert amazon.client_options["allow_http"] in (False, "false")


def test_settings_that_the_client_cannot_use_are_bad_settings_without_their_values() -> None:
    with pytest.raises(BadSettings, match=r"bucket photos .*AZURE_STORAGE_ACCOUNT_KEY") as refused:
        CloudStore("az://photos", {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "not base64, and secret"})
    assert "secret" not in str(refused.value)


# ---- a bucket, a prefix, a piece


def test_a_store_in_a_prefix_sees_and_touches_nothing_else(service: Service) -> None:
    url = service.bucket()
    everything, base, derived = (CloudStore(url + path, service.options, PATIENCE) for path in ("", "/base", "/derived"))
    base.put("k", io.BytesIO(b"base"))
    derived.put("k", io.BytesIO(b"derived"))
    assert (body(base, "k"), body(derived, "k")) == (b"base", b"derived")
    assert (keys(base), keys(derived), keys(everything)) == (["k"], ["k"], ["base/k", "derived/k"])
    assert derived.delete("k") is True
    assert body(base, "k") == b"base"


def test_an_object_of_many_pieces_comes_back_whole_with_its_words(store: CloudStore) -> None:
    data = os.urandom(2 * PIECE + 12345)
    assert store.put(HASH, io.BytesIO(data), type="image/tiff", note={"width": "640", "true-type": "tif"}) is True
    blob = store.get(HASH)
    assert blob is not None
    with blob:
        assert (blob.item.size, blob.item.type, dict(blob.item.note)) == (len(data), "image/tiff", {"width": "640", "true-type": "tif"})
        assert blob.file.read(7) == data[:7]
        assert blob.file.read() == data[7:]
    assert store.put(HASH, io.BytesIO(b"other"), create=True) is False
    assert store.put(HASH, io.BytesIO(bytes(2 * PIECE)), create=True) is False
    assert store.put("new", io.BytesIO(data), create=True) is True


@pytest.mark.parametrize("size", [WHOLE, WHOLE + 1, PIECE - 1, PIECE, PIECE + 1])
def test_an_object_of_any_size_around_the_bounds_comes_back_whole(store: CloudStore, size: int) -> None:
    data = os.urandom(size)
    store.put("k", io.BytesIO(data))
    assert body(store, "k") == data


class Failing(io.RawIOBase):
    """A source that fails after `good` bytes."""

    def __init__(self, good: int, error: Exception) -> None:
        self._left = good
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            raise self._error
        count = min(size, self._left)
        self._left -= count
        return bytes(count)


@pytest.mark.parametrize("error", [Cut(), FileNotFoundError("of the source"), OSError(5, "of the source")], ids=repr)
def test_a_large_source_that_fails_leaves_nothing_not_even_unseen(s3: Service, swift: Swift, error: Exception) -> None:
    url = s3.bucket()
    store = CloudStore(url, s3.options, PATIENCE)
    with pytest.raises(type(error)) as raised:
        store.put("k", Failing(4 * PIECE, error))  # type: ignore[arg-type]
    assert raised.value is error
    assert store.get("k") is None
    assert keys(store) == []
    parts = SwiftStore(Container(url.removeprefix("s3://") + "+segments"), swift)
    assert keys(parts) == []


def test_a_large_object_passes_through_little_memory(s3: Service) -> None:
    program = (
        "import io, os, resource, sys\n"
        "from imgproxy.stores.cloud import CloudStore\n"
        "class Long(io.RawIOBase):\n"
        "    left = 150 * 2**20\n"
        "    def read(self, size=-1):\n"
        "        count = min(size, self.left)\n"
        "        self.left -= count\n"
        "        return os.urandom(1) * count\n"
        "store = CloudStore(sys.argv[1], os.environ)\n"
        "store.put('small', io.BytesIO(b'x'))\n"
        "store.get('small').close()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "store.put('long', Long())\n"
        "blob, size = store.get('long'), 0\n"
        "while piece := blob.file.read(2**18):\n"
        "    size += len(piece)\n"
        "print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, s3.bucket()], env=os.environ | s3.options, capture_output=True, text=True, timeout=100, check=True
    )
    size, grown = map(int, done.stdout.split())
    assert size == 150 * 2**20
    assert grown < 80


def test_words_that_would_not_come_back_as_they_went_are_refused(store: CloudStore) -> None:
    for note in (
        {"Width": "1"},
        {"a_b": "1"},
        {"": "1"},
        {"width": ""},
        {"width": " 1"},
        {"width": "ä"},
        {"width": "1\n2"},
        {"width": "1" * 201},
    ):
        with pytest.raises(ValueError, match="not a note"):
            store.put("k", io.BytesIO(b"x"), note=note)
    with pytest.raises(ValueError, match="not a media type"):
        store.put("k", io.BytesIO(b"x"), type="image/png\r\n")
    assert keys(store) == []


# ---- deletion by prefix, listing


def test_what_was_made_from_one_original_is_deleted_together(store: CloudStore) -> None:
    made = [f"{HASH}-{width}x.jpg" for width in range(1, 31)]
    other = "0" * 64 + "-1x.jpg"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, io.BytesIO(b"x")), [*made, HASH, other]))
    assert store.delete_prefix(f"{HASH}-1x") == 1
    assert store.delete_prefix(f"{HASH}-") == 29
    assert store.delete_prefix(f"{HASH}-") == 0
    assert keys(store) == [other, HASH]


@pytest.mark.parametrize(
    "prefix", ["", "-", "9f86", HASH, HASH[:63] + "-", "x" + HASH + "-", HASH.upper() + "-", HASH + "-/", HASH + ".jpg"]
)
def test_no_other_prefix_is_deleted_by(store: CloudStore, prefix: str) -> None:
    store.put(HASH, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="not the beginning of derived names"):
        store.delete_prefix(prefix)
    assert keys(store) == [HASH]


def test_objects_that_others_delete_as_well_are_no_trouble(store: CloudStore) -> None:
    names = [f"{HASH}-{width}x.jpg" for width in range(100, 130)]
    for name in names:
        store.put(name, io.BytesIO(b"x"))
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: store.delete_prefix(f"{HASH}-"), range(4)))
    assert sum(counts) >= len(names)
    assert keys(store) == []


def test_what_strangers_put_there_is_left_out_of_a_listing(s3: Service, swift: Swift) -> None:
    url = s3.bucket()
    bucket = url.removeprefix("s3://")
    for name in ("a-b", "a/", "a/b", "A", "ä", "a b", "a%b", "a~b"):
        tell(swift, "PUT", f"{bucket}/{quote(name)}", {})
    assert keys(CloudStore(url, s3.options, PATIENCE)) == ["a-b", "a/b"]


class Disorderly(BaseHTTPRequestHandler):
    """A service that lists in no order, as directory buckets do."""

    def do_GET(self) -> None:
        row = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>1</Size></Contents>"
        rows = "".join(row.format(key) for key in "acbd")
        page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Busy(BaseHTTPRequestHandler):
    """A service that has time to delete but one object at a time, whatever it is asked for."""

    there: ClassVar[list[str]] = []

    def answer(self, page: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    def do_GET(self) -> None:
        row = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>1</Size></Contents>"
        rows = "".join(row.format(key) for key in self.there)
        self.answer(f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>")

    def do_POST(self) -> None:
        asked = re.findall("<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        del self.there[0]
        row = "<Error><Key>{}</Key><Code>ServiceUnavailable</Code><Message>Please reduce your request rate.</Message></Error>"
        refused = "".join(row.format(key) for key in asked if key in self.there)
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in asked if key not in self.there)
        self.answer(f"<DeleteResult>{gone}{refused}</DeleteResult>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[CloudStore]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield CloudStore("s3://photos", s3_options(server.server_port), PATIENCE)
        finally:
            server.shutdown()
            thread.join()


def test_a_service_that_lists_out_of_order_has_lied() -> None:
    with serving(Disorderly) as store:
        listing = store.list()
        assert [next(listing).key, next(listing).key] == ["a", "c"]
        with pytest.raises(StoreLied, match="out of order"):
            next(listing)


def test_what_a_busy_service_did_not_delete_among_many_is_tried_again() -> None:
    with serving(Busy) as store:
        Busy.there[:] = [f"{HASH}-{n}x.jpg" for n in range(1, 4)]
        assert store.delete_prefix(f"{HASH}-") == 3
    assert Busy.there == []


# ---- what keeps it from working


def test_a_missing_bucket_is_not_a_missing_object(service: Service) -> None:
    store = CloudStore(f"{service.scheme}://not-there-{uuid.uuid4().hex}", service.options, PATIENCE)
    asked: list[Callable[[], object]] = [
        lambda: store.get(HASH),
        lambda: store.head(HASH),
        lambda: store.put(HASH, io.BytesIO(b"x")),
        lambda: store.put(HASH, io.BytesIO(b"x"), create=True),
        lambda: store.put(HASH, io.BytesIO(bytes(PIECE + 1))),
        lambda: store.delete(HASH),
        lambda: store.delete_prefix(HASH + "-"),
        lambda: list(store.list()),
        store.check,
    ]
    for ask in asked:
        with pytest.raises(StoreDown, match="does not exist"):
            ask()
    with pytest.raises(BadSettings, match=r"IMG_STORE: bucket not-there-.* does not exist: make it"):
        store.prepare()


def test_wrong_keys_are_refused_and_the_variables_named(s3: Service) -> None:
    url = s3.bucket()
    store = CloudStore(url, s3.options | {"AWS_SECRET_ACCESS_KEY": "wrong"}, PATIENCE)
    for ask in (lambda: store.get("k"), lambda: store.head("k"), lambda: store.put("k", io.BytesIO(b"x")), store.check):
        with pytest.raises(StoreDown, match="AWS_SECRET_ACCESS_KEY") as refused:
            ask()
        assert "wrong" not in str(refused.value)
    with pytest.raises(BadSettings, match="no permission"):
        store.prepare()


def test_a_bucket_that_can_be_used_is_ready(store: CloudStore) -> None:
    store.prepare()
    store.put("k", io.BytesIO(b"x"))
    store.prepare()


def test_a_quota_is_a_full_store(s3: Service, swift: Swift) -> None:
    url = s3.bucket()
    bucket = url.removeprefix("s3://")
    tell(swift, "POST", bucket, {"X-Container-Meta-Quota-Bytes": "1000"})
    store = CloudStore(url, s3.options, PATIENCE)
    assert store.put("small", io.BytesIO(b"x" * 10)) is True
    with pytest.raises(StoreFull):
        store.put("large", io.BytesIO(b"x" * 2000))
    assert keys(store) == ["small"]


def test_nobody_listening_is_a_store_that_is_down_and_soon_known() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = CloudStore("s3://photos", s3_options(taken.getsockname()[1]), HASTY)
        began = time.monotonic()
        for ask in (
            lambda: store.get("k"),
            lambda: store.put("k", io.BytesIO(b"x")),
            store.check,
            store.prepare,
            lambda: list(store.list()),
        ):
            with pytest.raises(StoreDown, match="does not answer"):
                ask()
        assert time.monotonic() - began < 20


@pytest.fixture
def cutter(swift_box_1: SwiftBox) -> Iterator[Cutter]:
    with Cutter(swift_box_1.info["port"]) as cutter:
        yield cutter


def test_a_service_that_hangs_costs_a_bounded_time_and_is_used_again_when_it_is_back(s3: Service, cutter: Cutter) -> None:
    store = CloudStore(s3.bucket(), s3_options(cutter.port), HASTY)
    store.put("k", io.BytesIO(b"body"))
    cutter.misbehave(Rule("hang"))
    for ask in (lambda: store.get("k"), lambda: store.head("k"), lambda: list(store.list()), store.check):
        began = time.monotonic()
        with pytest.raises(StoreDown):
            ask()
        assert time.monotonic() - began < 10
    cutter.misbehave(None)
    assert body(store, "k") == b"body"


def test_a_large_body_that_breaks_off_is_taken_up_where_it_was(s3: Service, cutter: Cutter) -> None:
    store = CloudStore(s3.bucket(), s3_options(cutter.port), PATIENCE)
    data = os.urandom(4 * 2**20)
    store.put("k", io.BytesIO(data))
    cutter.misbehave(Rule("cut", after=2**20), times=1)
    assert body(store, "k") == data
    assert cutter.struck == 1


def test_a_body_that_breaks_off_every_time_is_an_error_and_never_short(s3: Service, cutter: Cutter) -> None:
    store = CloudStore(s3.bucket(), s3_options(cutter.port), PATIENCE)
    small, large = os.urandom(2**19), os.urandom(4 * 2**20)
    store.put("small", io.BytesIO(small))
    store.put("large", io.BytesIO(large))
    cutter.misbehave(Rule("cut", after=50_000))
    with pytest.raises(StoreTrouble):
        store.get("small")
    blob = store.get("large")
    assert blob is not None
    with blob, pytest.raises(StoreTrouble):
        blob.file.read()
    cutter.misbehave(None)
    assert (body(store, "small"), body(store, "large")) == (small, large)


def test_an_upload_that_breaks_off_leaves_nothing_or_all(s3: Service, cutter: Cutter) -> None:
    store = CloudStore(s3.bucket(), s3_options(cutter.port), PATIENCE)
    data = os.urandom(2 * PIECE)
    for key, size in (("small", 2**20), ("large", 2 * PIECE)):
        cutter.misbehave(Rule("cut", after=2**19, way="up"))
        with pytest.raises(StoreTrouble):
            store.put(key, io.BytesIO(data[:size]))
        cutter.misbehave(None)
        assert store.get(key) is None
        assert store.put(key, io.BytesIO(data[:size])) is True
        assert body(store, key) == data[:size]


# ---- forks and threads


def in_a_fork(ask: Callable[[], object]) -> str:
    """What `ask` comes to in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = repr(ask())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_a_store_that_was_used_says_so_and_does_not_hang(store: CloudStore, service: Service) -> None:
    store.check()
    told = in_a_fork(lambda: store.get("k"))
    assert told.startswith("StoreDown: ")
    assert "forked" in told
    assert store.get("k") is None


def test_a_store_that_was_only_made_before_a_fork_works_on_both_sides(s3: Service) -> None:
    program = (
        "import io, os, sys\n"
        "from imgproxy.stores.cloud import CloudStore\n"
        "store = CloudStore(sys.argv[1], os.environ)\n"
        "child = os.fork()\n"
        "store.put('child' if not child else 'parent', io.BytesIO(b'x'))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)\n"
    )
    url = s3.bucket()
    subprocess.run([sys.executable, "-c", program, url], env=os.environ | s3.options, timeout=60, check=True)
    assert keys(CloudStore(url, s3.options)) == ["child", "parent"]


def test_sixteen_threads_get_their_own_bytes(store: CloudStore) -> None:
    bodies = {f"{number:02}": os.urandom(1000 + 40_000 * (number % 5)) for number in range(40)}
    for key, data in bodies.items():
        store.put(key, io.BytesIO(data))

    def read(turn: int) -> bool:
        key = f"{turn % 40:02}"
        return body(store, key) == bodies[key]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(400)))


def test_the_library_keeps_no_place_for_secrets_in_what_is_raised() -> None:
    store = CloudStore("s3://photos", s3_options(1, secret="very-secret-key"), PATIENCE)
    with pytest.raises(StoreDown) as raised:
        store.check()
    error: BaseException | None = raised.value
    while error is not None:
        assert "very-secret-key" not in str(error)
        error = error.__cause__
