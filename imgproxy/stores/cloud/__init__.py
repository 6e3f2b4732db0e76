"""Objects in a bucket of S3, of Google's or Azure's storage, or of whatever else speaks S3.

    store = CloudStore("s3://photos/base", os.environ)
    store.prepare()

What such services promise, and what not:

| asked | answered |
| --- | --- |
| `put` returned | the service has it, by its own promise of durability |
| `put` raised | nothing is half there; whether all of it is there is open |
| `create=True` up to 8 MiB | atomic, where the service is: Amazon, Google, Azure; **not** Swift's own S3 |
| `create=True` beyond | asked first, then written: of several writers at one moment more than one may be told True |
| reading what was just written or deleted | what is there now, `fresh` or not; **not** through Swift's own S3: use `swift://` there |
| `list` | complete, in order of the keys; a service that lists in another order (S3's directory buckets) is a service that lied |
| `delete` | asked first, then deleted: of several at one moment more than one may be told True |
| `note` | a few short ASCII words; set by `put` alone, never changed later |
| a process that died within a large `put` | its parts stay behind unseen, until a rule of the bucket removes unfinished uploads |

Absence is only said where the service has said that the object is missing, and not the bucket. (Amazon says so to those who may list
the bucket, and refuses the others.) Small objects are read whole before `get` returns. Larger ones stream; a stream that breaks off is
taken up again by the client library where it was, so whoever reads checks the digest.

The library's threads do not follow a fork: a store may be made before, but then used on one side only.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from imgproxy.errors import BadSettings, StoreDown, StoreLied
from imgproxy.stores import Blob, Item, checked_key
from imgproxy.stores.cloud.bucket import Bucket, Patience, connected
from imgproxy.stores.cloud.streams import PIECE, Arriving, Pieces, piece
from imgproxy.stores.cloud.words import NO_OBJECT, attributes, code, note_of, refused_some, spoken, type_of

if TYPE_CHECKING:
    from obstore import GetResult

__all__ = ["PIECE", "WHOLE", "Bucket", "CloudStore", "Patience"]

WHOLE = 2**20
"""An object up to so many bytes is read at once; a larger one streams."""

_BLOCK = 2**18
_PAGE = 1000
_PAUSES = (0.1, 0.4, 1.0)
_BATCH = 250
_NOWHERE = "-"
_LETTERS = "-.0123456789_abcdefghijklmnopqrstuvwxyz"
_DERIVED = re.compile("[0-9a-f]{64}-[a-z0-9._-]*")
list_ = list


class CloudStore:
    """The objects of one bucket, or of one prefix in it; `options` are the service's own variables, as in the environment."""

    def __init__(self, url: str, options: Mapping[str, str], patience: Patience | None = None) -> None:
        patience = patience or Patience()
        self._bucket = Bucket.of(url)
        self._hither = connected(self._bucket, options, patience, patience.read)
        self._thither = connected(self._bucket, options, patience, patience.write)

    def prepare(self) -> None:
        """Return if the bucket can be used; raise `BadSettings` if a setting keeps it from that, `StoreDown` if it may be over soon."""
        try:
            self.check()
        except StoreDown as trouble:
            if self._bucket.keys in str(trouble):
                raise BadSettings([f"IMG_STORE: {trouble}"]) from trouble
            raise

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        """Open an object; a small one is there in full when this returns, a larger one streams."""
        checked_key(key)
        with spoken(self._bucket):
            found = self._found(key)
            if found is None:
                return None
            item = self._item(key, found)
            body = Arriving(found.stream(min_chunk_size=_BLOCK), item.size, self._bucket)
            if item.size <= WHOLE:
                return Blob(item, io.BytesIO(body.readall()))
            return Blob(item, cast("BinaryIO", io.BufferedReader(body, _BLOCK)))

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        """What the service knows of an object."""
        checked_key(key)
        with spoken(self._bucket):
            try:
                return self._item(key, obstore.get(self._hither, key, options={"head": True}))
            except FileNotFoundError:
                # An answer without a body does not say what is missing, the object or the bucket; one with a body does.
                found = self._found(key)
                return self._item(key, found) if found else None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Send all of `source`; a source that raises leaves nothing."""
        checked_key(key)
        said = attributes(self._bucket, type, note or {})
        first = piece(source)
        second = piece(source) if len(first) == PIECE else b""
        if not second:
            return self._put_whole(key, first, said, create)
        if create and self.head(key) is not None:
            return False
        self._put_in_pieces(key, Pieces(source, [first, second]), said)
        return True

    def delete(self, key: str) -> bool:
        """Remove an object; False if there was none."""
        if self.head(key) is None:
            return False
        with spoken(self._bucket):
            try:
                _delete(self._hither, key)
            except FileNotFoundError as error:
                self._be_there(error)
                return False
        return True

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything made from one original, many at a time; `prefix` is a hash and a `-`, so no original is among it."""
        if not _DERIVED.fullmatch(prefix):
            raise ValueError(f"not the beginning of derived names alone: {prefix!r}")
        keys = (item.key for item in self.list(prefix))
        count = 0
        while batch := list_(islice(keys, _BATCH)):
            count += self._delete_together(batch)
        return count

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The objects of the bucket, a page at a time; names that are no keys are left out. Nothing is said of types and notes."""
        folder = prefix[: prefix.rfind("/") + 1]
        if folder and not _key(folder[:-1]):
            return
        last = ""
        for item in self._listed(folder[:-1], max(_key(after), _just_before(prefix, folder))):
            if item.key <= last:
                if item.size == 0:  # the mark of a folder, `key/`, comes without its slash and so out of turn
                    continue
                raise StoreLied(f"bucket {self._bucket.name}: the service lists out of order")
            last = item.key
            if last.startswith(prefix):
                if last > after:
                    yield item
            elif last > prefix:
                return

    def check(self) -> None:
        """Return if the bucket answers."""
        with spoken(self._bucket):
            next(iter(obstore.list(self._hither, _NOWHERE, chunk_size=1)), None)

    def close(self) -> None:
        """Nothing is held open but idle connections, which end by themselves."""

    def _found(self, key: str) -> GetResult | None:
        try:
            return obstore.get(self._hither, key)
        except FileNotFoundError as error:
            self._be_there(error)
            return None

    def _be_there(self, absence: FileNotFoundError) -> None:
        """Return if it is the object that is missing; raise if it is the bucket."""
        if code(absence) not in NO_OBJECT:
            self.check()

    def _item(self, key: str, found: GetResult) -> Item:
        meta, said = found.meta, found.attributes
        return Item(key, meta["size"], type_of(said), note_of(self._bucket, said), meta["last_modified"].timestamp())

    def _listed(self, folder: str, after: str) -> Iterator[Item]:
        with spoken(self._bucket):
            for page in obstore.list(self._hither, folder or None, offset=after or None, chunk_size=_PAGE):
                for row in page:
                    if _key(row["path"]):
                        yield Item(row["path"], row["size"], modified=row["last_modified"].timestamp())

    def _put_whole(self, key: str, data: bytes, said: dict[str, str], create: bool) -> bool:
        with spoken(self._bucket):
            try:
                obstore.put(self._thither, key, data, attributes=said, mode="create" if create else "overwrite", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def _put_in_pieces(self, key: str, pieces: Pieces, said: dict[str, str]) -> None:
        """Send as many pieces as there are; what was sent is taken back by the library when the source or the service fails."""
        try:
            with spoken(self._bucket):
                obstore.put(self._thither, key, pieces, attributes=said, use_multipart=True, chunk_size=PIECE, max_concurrency=2)
        except Exception:
            if pieces.failure is not None:
                raise pieces.failure from None
            raise

    def _delete_together(self, keys: list_[str]) -> int:
        with spoken(self._bucket):
            try:
                _delete(self._thither, keys)  # takes its time: some services do this one by one
                return len(keys)
            except FileNotFoundError as error:
                self._be_there(error)
        # Somebody else deletes as well, and not every service takes that for granted.
        return sum(map(self.delete, keys))


def _delete(client: Any, what: str | list[str]) -> None:
    """Delete one or many; what a busy service heard and did not do, the library does not try again."""
    for pause in _PAUSES:
        try:
            return obstore.delete(client, what)
        except BaseError as error:
            if not refused_some(error):
                raise
        time.sleep(pause)
    return obstore.delete(client, what)


def _key(text: str) -> str:
    """The text if it is a key, else nothing."""
    try:
        return checked_key(text)
    except ValueError:
        return ""


def _just_before(prefix: str, folder: str) -> str:
    """A key that is less than all that begin with `prefix`, and greater than most others in `folder`; or nothing.

    The library takes a prefix for a folder. So a listing starts just before the prefix, and ends where the prefix does.

    >>> _just_before("9f86-", ""), _just_before("commits/0001", "commits/"), _just_before("commits/", "commits/")
    ('9f86', 'commits/0000z', '')
    """
    stem, last = prefix[:-1], prefix[-1:]
    if prefix == folder or last not in _LETTERS:
        return ""
    place = _LETTERS.index(last)
    return _key(stem + _LETTERS[place - 1] + "z" if place else stem)
