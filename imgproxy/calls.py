"""Calls to other servers over HTTP: a line to one of them, or to any; what comes back is read as a stream, and never more than wanted.

Nothing is done behind the caller's back: no proxy of the environment is used, no redirect followed, no cookie kept, no body unpacked.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, BinaryIO, TypeAlias

import httpx

from imgproxy.errors import CallFailed, NoConnection, TooMuch

Body: TypeAlias = bytes | Iterable[bytes] | BinaryIO | None
"""What is sent: bytes, some after the other, or a file from where it stands."""

_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "imgproxy"}
_LONGEST = 86_400.0
_SAID = "imgproxy.headers"
_OURS_TO_MEND = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class Request:
    """One question: its method, where it goes, its words and its body.

    `name` is what the other side has to prove to be where the address is a number; `until` is the moment (monotonic) at which the
    connection is cut, whatever it is doing.
    """

    method: str
    target: str
    headers: Mapping[str, str] | None = None
    body: Body = None
    name: str = ""
    until: float | None = None


class Answer:
    """What came back: the status and the headers, by lowercase name, and a body that is still to be read."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.extensions[_SAID].items()}

    @property
    def peer(self) -> str:
        """The address that answers, as a number."""
        stream = self._response.extensions.get("network_stream")
        address = stream.get_extra_info("server_addr") if stream is not None else None
        return str(address[0]) if isinstance(address, tuple) else ""

    def chunks(self) -> Iterator[bytes]:
        """The body as it was sent, piece by piece as it comes: of one that breaks off, nothing is held back."""
        with _in_our_words():
            yield from self._response.iter_raw()

    def read(self, most: int | None = None) -> bytes:
        """All of the body, or `TooMuch` if it is longer than `most` bytes."""
        taken = bytearray()
        for chunk in self.chunks():
            taken += chunk
            if most is not None and len(taken) > most:
                raise TooMuch(f"the answer is longer than {most} bytes")
        return bytes(taken)


class Line:
    """Connections to the server at `origin` (to any, if that is empty); each step of a call may take `seconds`.

    Connections are kept for the next call, `kept` of them at most. A line may be used by many threads.
    """

    def __init__(
        self,
        origin: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = 30.0,
        kept: int = 8,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._client = httpx.Client(
            base_url=origin,
            headers={**_HEADERS, **(headers or {})},
            timeout=httpx.Timeout(seconds, pool=_LONGEST),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            verify=trust if trust is not None else trusting(),
            trust_env=False,
            follow_redirects=False,
            event_hooks={"response": [_location_unread]},
        )

    @contextmanager
    def call(self, request: Request) -> Iterator[Answer]:
        """Ask, and hold the answer open while the block runs; raise `CallFailed` if there is none."""
        with _in_our_words(), _cut_at(request.until) as traced:
            extensions: dict[str, Any] = {"trace": traced}
            if request.name:
                extensions["sni_hostname"] = request.name
            headers = dict(request.headers or {})
            with self._client.stream(
                request.method, request.target, headers=headers, content=request.body, extensions=extensions
            ) as response:
                yield Answer(response)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def trusting(file: str | None = None) -> ssl.SSLContext:
    """Whom to believe to be who they say: the usual authorities and those of this machine, or those in a file alone."""
    if file is not None:
        return ssl.create_default_context(cafile=file)
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _location_unread(response: httpx.Response) -> None:
    """Keep from httpx where a redirect leads: it reads that without following, and says of what is no URL that the server broke off."""
    response.extensions[_SAID] = response.headers.copy()
    response.headers.pop("location", None)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What httpx raises, in our own words."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NoConnection(f"no connection: {_said(error)}") from error
    except httpx.TimeoutException as error:
        raise CallFailed("the other server was too slow") from error
    except _OURS_TO_MEND as error:
        raise CallFailed(f"this cannot be asked: {_said(error)}", again=False) from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise CallFailed(f"the other server broke off: {_said(error)}") from error
    except httpx.InvalidURL as error:
        raise CallFailed("this is no URL", again=False) from error


def _said(error: Exception) -> str:
    """What went wrong, in printable words and not too many of them."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(error)[:200]) or type(error).__name__


@contextmanager
def _cut_at(until: float | None) -> Iterator[Any]:
    """Cut the connection that is made in this block, at a moment: a server that sends a byte now and then is never slow for long."""
    if until is None:
        yield lambda _event, _info: None
        return
    scissors = _Scissors()
    timer = threading.Timer(max(0.0, until - time.monotonic()), scissors.cut)
    timer.daemon = True
    timer.start()
    try:
        yield scissors.hear
    finally:
        timer.cancel()
        scissors.close()


class _Scissors:
    """A second hand on a socket: it holds on to a copy of its descriptor, whoever wraps and closes the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: socket.socket | None = None
        self._late = False

    def hear(self, event: str, info: Mapping[str, Any]) -> None:
        """Take hold of the socket as soon as there is one."""
        if event != "connection.connect_tcp.complete":
            return
        made = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._let_go()
            self._held = socket.socket(fileno=os.dup(made.fileno()))
            late = self._late
        if late:
            self.cut()

    def cut(self) -> None:
        """End the conversation for both sides."""
        with self._lock:
            self._late = True
            if self._held is not None:
                with suppress(OSError):
                    self._held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None
