"""Objects in a container of OpenStack Swift: the home of a repository that several machines share.

    swift = Swift(account_from(os.environ))
    store = SwiftStore(Container("photos-base", policy="gold"), swift)
    store.prepare()

What Swift promises, and what not:

| asked | answered |
| --- | --- |
| `put` returned | a majority of the replicas have it, on disk; the others follow |
| `put` raised | nothing is half there; whether all of it is there is open |
| `create=True` | is **not atomic**: of several writers at one moment more than one may be told True |
| a read after overwriting or deleting while a server was away | may give what was, unless `fresh=True` (asks all replicas) |
| `list` | a hint: names may be missing for a while, or linger; ask `head(fresh=True)` before anything is decided by it |
| a rotten replica | its bytes are delivered once, then it is put away: who reads checks the digest, and asks again |
| `note` | `X-Object-Meta-...`, a few short ASCII words; set by `put` alone, never changed later |
| the largest object | 5 GiB |

Small objects are read whole before `get` returns, and read again if that broke off. Larger ones stream; a stream that breaks off raises
and is not resumed, since nobody checks a range.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, unquote

from swiftclient import client  # type: ignore[import-untyped]

from imgproxy.errors import BadSettings, StoreLied
from imgproxy.stores import Blob, Item, checked_key, is_key
from imgproxy.stores.swift.account import Keystone, SwiftAccount, TempAuth, account_from
from imgproxy.stores.swift.cluster import Line, Patience, Swift
from imgproxy.stores.swift.labels import item, listed, written
from imgproxy.stores.swift.parcel import Arriving, Parcel

__all__ = ["Container", "Keystone", "Patience", "Swift", "SwiftAccount", "SwiftStore", "TempAuth", "account_from"]

T = TypeVar("T")

WHOLE = 2**20
"""An object up to so many bytes is read at once; a larger one streams."""

_BLOCK = 2**18
_SURE = 5.0
_SLOWEST = 2**20
_OVERTAKEN = 202
_DERIVED = re.compile("[0-9a-f]{64}-[a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Container:
    """A container, and how it is to be used.

    `policy` is the storage policy to make it with, `make` whether it may be made, `newest` whether every read asks all replicas,
    `expire_after` after how many seconds what is put there disappears, `page` how many names are listed or deleted by one request.
    """

    name: str
    policy: str = ""
    make: bool = True
    newest: bool = False
    expire_after: int | None = None
    page: int = 10_000

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "/" in self.name or len(self.name.encode()) > 256:
            raise ValueError(f"not the name of a container: {self.name!r}")


class SwiftStore:
    """The objects of one container."""

    def __init__(self, container: Container, swift: Swift) -> None:
        self._container = container
        self._name = container.name
        self._swift = swift
        self._seen = -_SURE

    def prepare(self) -> Sequence[str]:
        """Make the container if it is missing and may be made; returns warnings, raises `BadSettings` if it cannot be used."""
        headers = self._ask(self._head_container, {404})
        if headers is None:
            self._make()
            return []
        policy = headers.get("x-storage-policy", "")
        if self._container.policy and policy.lower() != self._container.policy.lower():
            return [f"container {self._name} has the storage policy {policy}, not {self._container.policy}: a policy is for life"]
        return []

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """Open an object; a small one is there in full when this returns, a larger one streams."""
        checked_key(key)
        loan = self._swift.borrow(lambda line: self._open(line, key, fresh), self._name, {404})
        if loan is None:
            self._be_there(fresh)
            return None
        said, file = loan.answer
        if isinstance(file, io.BytesIO):
            self._swift.give_back(loan.line)
            return Blob(said, file)
        file.on_close = lambda whole: self._swift.give_back(loan.line) if whole else loan.line.cut()
        return Blob(said, cast("BinaryIO", io.BufferedReader(file, _BLOCK)))

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What Swift knows of an object."""
        checked_key(key)
        said = self._ask(lambda line: item(key, self._head_object(line, key, fresh)), {404})
        if said is None:
            self._be_there(fresh)
        return said

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Send all of `source`, and see to it that what arrived is what was sent; a source that raises leaves nothing."""
        headers = written(type, note or {}) | self._expiry | ({"If-None-Match": "*"} if create else {})
        checked_key(key)
        parcel = Parcel(source)
        # What cannot be sent twice is not sent before the pass is known to be good, nor what is not wanted at all.
        if (create or not parcel.rewindable) and self._etag(key) is not None and create:
            return False
        told = self._sent(key, parcel, headers)
        if told is None:
            return self._is_ours(key, parcel)
        if told["status"] != _OVERTAKEN and told["headers"].get("etag", "").strip('"') != parcel.md5:
            self.delete(key)
            raise StoreLied(f"container {self._name}: what Swift stored is not what was sent, and was deleted")
        return True

    def delete(self, key: str) -> bool:
        """Remove an object; a replica that was away is told later."""
        checked_key(key)
        if self._ask(lambda line: client.delete_object(line.url, line.token, self._name, key, http_conn=line.http) or True, {404}):
            return True
        self._be_there()
        return False

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything made from one original, many at a time; `prefix` is a hash and a `-`, so no original is among it."""
        if not _DERIVED.fullmatch(prefix):
            raise ValueError(f"not the beginning of derived names alone: {prefix!r}")
        keys = (found.key for found in self.list(prefix))
        count = 0
        while page := list(islice(keys, self._container.page)):
            deleted = self._delete_together(page)
            count += sum(map(self.delete, page)) if deleted is None else deleted
        return count

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The objects of the container, a page at a time; names that are no keys are left out. Nothing is said of notes."""
        while rows := self._page(prefix, after):
            for row in rows:
                if not row.key.startswith(prefix) or row.key <= after:
                    raise StoreLied(f"container {self._name}: Swift lists what was not asked for")
                after = row.key
                if is_key(after):
                    yield row

    def check(self) -> None:
        """Return if the container answers."""
        self._ask(self._head_container)
        self._seen = time.monotonic()

    def close(self) -> None:
        """Let go of idle connections; using the store again opens new ones."""
        self._swift.close()

    def _ask(self, call: Callable[[Line], T], none_on: Set[int] = frozenset[int]()) -> T | None:
        return self._swift.ask(call, self._name, none_on)

    def _be_there(self, fresh: bool = False) -> None:
        """Absence is only said of an object whose container exists: Swift answers 404 for either."""
        if fresh or time.monotonic() - self._seen > _SURE:
            self.check()

    def _newest(self, fresh: bool) -> dict[str, str]:
        return {"X-Newest": "true"} if fresh or self._container.newest else {}

    @property
    def _expiry(self) -> dict[str, str]:
        return {"X-Delete-After": str(self._container.expire_after)} if self._container.expire_after else {}

    def _make(self) -> None:
        name, policy = self._name, self._container.policy
        if not self._container.make:
            raise BadSettings([f"IMG_STORE: container {name} does not exist, and the settings do not let it be made"])
        headers = {"X-Storage-Policy": policy} if policy else {}
        made = self._ask(lambda line: client.put_container(line.url, line.token, name, headers, line.http) or True, {400, 409})
        if not made:
            raise BadSettings(
                [f"IMG_STORE: container {name} cannot be made: Swift has no storage policy {policy}, or will not have it here"]
            )

    def _head_container(self, line: Line) -> Mapping[str, str]:
        found: Mapping[str, str] = client.head_container(line.url, line.token, self._name, http_conn=line.http)
        return found

    def _head_object(self, line: Line, key: str, fresh: bool) -> Mapping[str, str]:
        headers = self._newest(fresh)
        said: Mapping[str, str] = client.head_object(line.url, line.token, self._name, key, line.http, headers=headers)
        return said

    def _etag(self, key: str) -> str | None:
        """The MD5 of what is there now; None if nothing is."""
        return self._ask(lambda line: self._head_object(line, key, fresh=True).get("etag", "").strip('"'), {404})

    def _open(self, line: Line, key: str, fresh: bool) -> tuple[Item, io.BytesIO | Arriving]:
        headers, body = client.get_object(
            line.url, line.token, self._name, key, resp_chunk_size=_BLOCK, http_conn=line.http, headers=self._newest(fresh)
        )
        said = item(key, headers)
        file = Arriving(body.resp.raw, said.size, line.until + said.size / _SLOWEST, self._name)
        if said.size > WHOLE:
            return said, file
        with file:
            return said, io.BytesIO(file.readall())

    def _sent(self, key: str, parcel: Parcel, headers: Mapping[str, str]) -> dict[str, Any] | None:
        def send(line: Line) -> dict[str, Any]:
            told: dict[str, Any] = {}
            contents = parcel if parcel.size != 0 else None
            client.put_object(
                line.url, line.token, self._name, key, contents, parcel.size, headers=headers, http_conn=line.http, response_dict=told
            )
            return told

        try:
            return self._swift.send(send, self._name, parcel.rewind, {412})
        except Exception:
            if parcel.failure is not None:
                raise parcel.failure from None
            raise

    def _is_ours(self, key: str, parcel: Parcel) -> bool:
        """Whether what is there came from an earlier try, whose answer was lost."""
        return bool(parcel.arrived) and self._etag(key) == parcel.arrived

    def _page(self, prefix: str, after: str) -> Sequence[Item]:
        def page(line: Line) -> Sequence[Item]:
            rows = client.get_container(
                line.url,
                line.token,
                self._name,
                after,
                self._container.page,
                prefix,
                http_conn=line.http,
                headers=self._newest(False),
            )[1]
            return [listed(row) for row in rows]

        return self._ask(page) or []

    def _delete_together(self, keys: Sequence[str]) -> int | None:
        """How many were deleted by one request; None if Swift does not know how to."""
        lines = "".join(f"{quote(self._name, safe='')}/{quote(key)}\n" for key in keys).encode()
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}

        def delete(line: Line) -> bytes:
            body: bytes = client.post_account(line.url, line.token, headers, line.http, query_string="bulk-delete", data=lines)[1]
            return body

        body = self._ask(delete, {400, 403, 404, 405, 411, 412, 413, 501})
        try:
            told = json.loads(body or b"")
            count, errors = int(told["Number Deleted"]), told["Errors"]
        except (ValueError, KeyError, TypeError):
            return None
        return count + sum(self.delete(unquote(name).lstrip("/").partition("/")[2]) for name, _ in errors)
