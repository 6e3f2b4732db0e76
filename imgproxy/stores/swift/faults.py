"""What the errors of Swift, of the way to it and of the libraries on that way mean here: the one place that translates them."""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from requests.exceptions import RequestException, SSLError
from swiftclient.exceptions import ClientException  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from imgproxy.errors import Error, StoreDown, StoreFull, StoreLied, StoreRefused, StoreTrouble, TooMuch

_PASSING = frozenset((408, 429, 498, 499))


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error of Swift's, or of the way to it, means here."""

    kind: type[Error]
    text: str
    again: bool = False
    status: int | None = None


def fault_of(error: Exception, where: str, settings: str) -> Fault:
    """What a foreign error means; `where` is the container that was asked for, `settings` what to look at if it was refused."""
    if isinstance(error, StoreTrouble):
        return Fault(type(error), str(error), again=isinstance(error, StoreDown))
    if isinstance(error, ClientException):
        return _fault_of_status(error, where, settings)
    if isinstance(error, SSLError):
        return Fault(StoreRefused, f"container {where}: Swift's certificate is not trusted: check OS_CACERT and {settings}")
    if isinstance(error, RequestException) and isinstance(error, ValueError):
        return Fault(StoreRefused, f"container {where}: no address of Swift's: check {settings}")
    if isinstance(error, (RequestException, HTTPError, HTTPException, OSError)):
        late = "timeout" in type(error).__name__.lower()
        text = "Swift took too long" if late else "no connection to Swift, or it broke"
        return Fault(StoreDown, f"container {where}: {text}", again=True)
    return Fault(StoreLied, f"container {where}: Swift's answer makes no sense")


def _fault_of_status(error: Any, where: str, settings: str) -> Fault:
    status: int | None = error.http_status
    if status is None:
        return Fault(StoreRefused, f"container {where}: Swift lets nobody in: check {settings}")
    if status == 401:
        return Fault(StoreRefused, f"container {where}: the account was refused (401): check {settings}", status=status)
    if status == 403:
        text = f"container {where}: no permission (403): check {settings}, the account's roles and the container's ACL"
        return Fault(StoreRefused, text, status=status)
    if status == 404:
        return Fault(StoreDown, f"container {where} does not exist: make it, or let it be made at the start", status=status)
    if status == 507 or (status == 413 and b"quota" in (error.http_response_content or b"")):
        return Fault(StoreFull, f"container {where}: no room left, or its quota is reached ({status})", status=status)
    if status == 413:
        return Fault(TooMuch, "larger than an object of Swift may be", status=status)
    if status >= 500 or status in _PASSING:
        return Fault(StoreDown, f"container {where}: Swift answered {status}", again=True, status=status)
    return Fault(StoreLied, f"container {where}: Swift answered {status}", status=status)


def fault_of_entry(error: Exception, where: str, settings: str) -> Fault:
    """What it means that no pass was given."""
    fault = fault_of(error, where, settings)
    if fault.again or fault.status == 401 or (fault.status is None and issubclass(fault.kind, StoreDown)):
        return fault
    said = f" ({fault.status})" if fault.status else ""
    return Fault(StoreRefused, f"container {where}: Swift lets nobody in{said}: check {settings}")
