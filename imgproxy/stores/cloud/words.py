"""What a service says, and what is said to it: errors, types and notes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

from imgproxy.errors import StoreDown, StoreFull, StoreLied, StoreTrouble
from imgproxy.stores.cloud.bucket import Bucket

NO_OBJECT = frozenset(("NoSuchKey", "BlobNotFound"))
"""The words by which services say that it is the object that is missing."""

_NO_BUCKET = frozenset(("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound"))
_NO_ROOM = frozenset(("QuotaExceeded", "EntityTooLarge", "RequestBodyTooLarge", "InsufficientStorage", "XMinioStorageFull"))
_UNTYPED = "binary/octet-stream"
_NAME = re.compile("[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_VALUE = re.compile("[!-~](?:[ -~]{0,198}[!-~])?")
_used_in = 0


@contextmanager
def spoken(bucket: Bucket) -> Iterator[None]:
    """Turn what the library raises into the store's own words."""
    _stay_here(bucket)
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise trouble(bucket, error) from error


def _stay_here(bucket: Bucket) -> None:
    """The library's threads live in the process of its first request; in a fork of that, requests would wait for them for ever."""
    global _used_in
    _used_in = _used_in or os.getpid()
    if _used_in != os.getpid():
        raise StoreDown(f"bucket {bucket.name}: such a store was used before this process was forked off, and cannot be used here")


def trouble(bucket: Bucket, error: Exception) -> StoreTrouble:
    """The trouble that an error means; the library has few kinds of them, and the rest in its text."""
    said, text = code(error), str(error)
    if said in _NO_ROOM or "status code: 507" in text:
        return StoreFull(f"bucket {bucket.name}: no room left, or its quota is reached")
    if said in _NO_BUCKET or isinstance(error, FileNotFoundError):
        return StoreDown(f"bucket {bucket.name} does not exist: make it, or name another; check {bucket.keys}")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or re.search("status code: 40[13]", text):
        return StoreDown(f"bucket {bucket.name}: no permission to read, write and list: check {bucket.keys}, and the bucket's policy")
    if isinstance(error, InvalidPathError):
        return StoreLied(f"bucket {bucket.name}: holds an object whose name cannot be read")
    return StoreDown(f"bucket {bucket.name}: the service does not answer, or not as it should")


def code(error: Exception) -> str:
    """The word by which S3, Google and Azure alike say what is wrong, if they said it."""
    match = re.search("<Code>([A-Za-z]+)</Code>", str(error))
    return match[1] if match else ""


def refused_some(error: Exception) -> bool:
    """Whether a deletion of many was heard, and some of them were not deleted: only the error's text says so."""
    return "DeleteObjects request failed for key" in str(error)


def attributes(bucket: Bucket, type: str, note: Mapping[str, str]) -> dict[str, str]:
    """What is written on an object that is put; `ValueError` for what would not come back as it went."""
    if type and not _VALUE.fullmatch(type):
        raise ValueError(f"not a media type: {type!r}")
    for name, text in note.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(text):
            raise ValueError(f"not a note that a bucket keeps: {name!r}: {text!r}")
    # Azure has no `-` in such names, and we have no `_`.
    named = {name.replace("-", "_") if bucket.scheme == "az" else name: text for name, text in note.items()}
    return named | ({"Content-Type": type} if type else {})


def type_of(said: Mapping[str, str]) -> str:
    """The media type; S3 has one for everything, and that which says nothing is ours for none."""
    type = said.get("Content-Type", "")
    return "" if type == _UNTYPED else type


def note_of(bucket: Bucket, said: Mapping[str, str]) -> dict[str, str]:
    """The note of an object; what has capitals in its name is of the service's own."""
    return {name.replace("_", "-") if bucket.scheme == "az" else name: text for name, text in said.items() if name.islower()}
