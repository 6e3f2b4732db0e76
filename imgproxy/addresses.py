"""Which URLs of strangers are asked: rules for the text, and for the addresses that a name leads to. Nothing is looked up here.

1. The scheme is http or https; there is no user and no password; the port is one that is allowed.
2. The host is a name, four decimal numbers, or an IPv6 address in brackets. Whatever else some resolver would take for an address
   (`127.1`, `0x7f000001`, `017700000001`, `2130706433`, a zone) is refused, not understood.
3. Every address that the name leads to is one of the public internet: IPv4 that is globally routed, and IPv6 within 2000::/3 that carries
   no IPv4 inside (mapped, compatible, NAT64, 6to4, Teredo, ISATAP). One that is not spoils them all.
4. Networks may be allowed by name, and hosts demanded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from imgproxy.errors import BadAddress

Network: TypeAlias = IPv4Network | IPv6Network

LONGEST = 4096
"""Bytes of the longest URL that is looked at."""

_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443}

_CLOSED = {
    "this network": "0.0.0.0/8",
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
    "shared by a provider": "100.64.0.0/10",
    "loopback": "127.0.0.0/8",
    "link-local": "169.254.0.0/16",
    "set aside": "192.0.0.0/24 198.18.0.0/15 240.0.0.0/4",
    "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
    "a relay": "192.88.99.0/24",
    "multicast": "224.0.0.0/4",
}
_CLOSED_4 = tuple((IPv4Network(network), word) for word, networks in _CLOSED.items() for network in networks.split())
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = (
    (IPv6Network("2001::/23"), "Teredo, or set aside"),
    (IPv6Network("2001:db8::/32"), "for documentation"),
    (IPv6Network("2002::/16"), "6to4"),
    (IPv6Network("3fff::/20"), "for documentation"),
)
_ISATAP = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: what is asked, of whom."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the other side wants to be called."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """The URL without its query, which may be a secret: for the log."""
        return f"{self.scheme}://{self.authority}{self.path.partition('?')[0]}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def at(self, address: str) -> str:
        """The same URL, with a number in the place of the name."""
        return f"{self.scheme}://{f'[{address}]' if ':' in address else address}:{self.port}{self.path}"

    def follow(self, location: str) -> str:
        """Where a redirect from here leads, or `BadAddress`."""
        try:
            return urljoin(str(self), location)
        except ValueError:
            raise BadAddress("not a URL") from None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may be asked: `hosts` (nobody else, unless there are none; `*.example.org` is all below it), private `networks`, and `ports`."""

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = (80, 443)

    def target(self, url: str) -> Target:
        """What a URL asks of whom, or `BadAddress`."""
        target = taken_apart(url)
        if target.port not in self.ports:
            raise BadAddress("this port is not asked", str(target.port))
        if self.hosts and not any(_covers(pattern, target.host) for pattern in self.hosts):
            raise BadAddress("this host is not among those that are asked", target.host)
        return target

    def admit(self, addresses: Sequence[str]) -> None:
        """Return if all of these may be connected to, or raise `BadAddress`."""
        if not addresses:
            raise BadAddress("this host has no address")
        for text in addresses:
            address = ip_address(text)
            word = closed(address)
            if word and not any(address in network for network in self.networks):
                raise BadAddress("this host leads to an address that is not public", f"{text} ({word})")


def taken_apart(url: str) -> Target:
    """The parts of an absolute URL, or `BadAddress`.

    >>> taken_apart("https://Example.org:8443/a b?c#d")
    Traceback (most recent call last):
    imgproxy.errors.BadAddress: not a URL: it has a character that no URL has
    >>> taken_apart("https://Example.org:8443/a?c#d")
    Target(scheme='https', host='example.org', port=8443, path='/a?c')
    """
    if len(url) > LONGEST:
        raise BadAddress(f"a URL of more than {LONGEST} characters")
    if any(c <= " " or c in '\\"<>^`{|}' or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in url):
        raise BadAddress("not a URL: it has a character that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadAddress("not a URL") from None
    if parts.scheme not in _PORTS or not parts.netloc:
        raise BadAddress("only http and https URLs are asked")
    if "@" in parts.netloc:
        raise BadAddress("a URL with a user or a password is not asked")
    path = quote(parts.path or "/", safe="".join(map(chr, range(33, 127))))
    query = quote(parts.query, safe="".join(map(chr, range(33, 127))))
    host = _host(parts.netloc, parts.hostname or "")
    return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, path + (f"?{query}" if query else ""))


def closed(address: IPv4Address | IPv6Address) -> str:
    """Why an address is not one of the public internet; empty if it is."""
    if isinstance(address, IPv4Address):
        return next((word for network, word in _CLOSED_4 if address in network), "")
    if address not in _OPEN_6:
        return _outside(address)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "ISATAP"
    return next((word for network, word in _CLOSED_6 if address in network), "")


def network(text: str) -> Network:
    """A network as settings spell it, or `ValueError`."""
    return ip_network(text, strict=True)


def _outside(address: IPv6Address) -> str:
    """What kind of address it is that is none of those handed out to the public."""
    if address.ipv4_mapped is not None:
        return "IPv4 within IPv6"
    if address.is_loopback or address.is_unspecified:
        return "loopback" if address.is_loopback else "unspecified"
    if address.is_link_local or address.is_site_local:
        return "link-local" if address.is_link_local else "site-local"
    if address.is_multicast:
        return "multicast"
    return "private" if address in IPv6Network("fc00::/7") else "not handed out to the public"


def _host(netloc: str, hostname: str) -> str:
    """The host of a URL, spelled the one way in which it is asked."""
    try:
        if netloc.startswith("["):
            if "%" in hostname:
                raise BadAddress("an address with a zone is not asked")
            return str(IPv6Address(hostname))
        name = hostname.removesuffix(".")
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return str(IPv4Address(name))
    except AddressValueError:
        raise BadAddress("not an address: expected four decimal numbers, or IPv6") from None
    if not name.isascii() or not _NAME.fullmatch(name):
        raise BadAddress("not the name of a host (a name in other letters is written as xn--...)")
    return name


def _covers(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
