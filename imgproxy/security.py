r"""Who may have what: asked at the door, before anything is looked up.

A signed path is `/s/<signature>/<name>`, or `/s/<signature>/<expires>/<name>` with `expires` in seconds since 1970. The signature is
the HMAC-SHA-256, in base64url without padding, of three lines: `imgproxy read v1`, the expiry or nothing, the name; with `\n` between
them and none at the end. Neither an expiry nor a name has a newline, so no two paths are the same three lines; and the first line
keeps a key that is used for something else, too, from signing a picture by accident.

>>> Keyring([b"sixteen or more bytes"]).sign("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.jpg", expires=1900000000)
'/s/Bsnpr-ezsNRHPQFyia2H9n2om4IKpgZsfqcL_BNaDWA/1900000000/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.jpg'

A token opens the doors for writing. It is random, only its SHA-256 is kept, and it has scopes, perhaps an end, and a name that stands in
the log. How much one request may cost is another question (`limits.py`).
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NoReturn

from imgproxy.errors import BadName, Forbidden, Stranger
from imgproxy.grammar import Base, Name, parse, rendition

SHORTEST_KEY = 16
"""A key of fewer bytes could be guessed."""

_PURPOSE = "imgproxy read v1"
_SIGNATURE = "[A-Za-z0-9_-]{43}"
_EXPIRES = "[1-9][0-9]{9,10}"
_SIGNED = re.compile(f"/s/({_SIGNATURE})/(?:({_EXPIRES})/)?([^/]*)")


class Keyring:
    """The keys that sign paths: the first signs, any opens, so that a new key is put in front and an old one taken away later."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a keyring needs a key")
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise ValueError(f"a key has at least {SHORTEST_KEY} bytes")
        self._keys = tuple(keys)

    def sign(self, name: str, expires: int | None = None) -> str:
        """Return the signed path of a name; from the second `expires` on it no longer opens."""
        parse(name)
        when = "" if expires is None else str(expires)
        if when and not re.fullmatch(_EXPIRES, when):
            raise ValueError("an expiry is a number of seconds since 1970, of ten or eleven digits")
        signature = _signature(self._keys[0], when, name)
        return f"/s/{signature}/{when}/{name}" if when else f"/s/{signature}/{name}"

    def opened(self, path: str, now: float) -> tuple[str, int | None]:
        """Return the name in a signed path, and its expiry; raise `BadName` if it is no such path, `Forbidden` if it does not open."""
        match = _SIGNED.fullmatch(path)
        if match is None:
            _explain(path)
        signature, when, name = match[1], match[2] or "", match[3]
        _must_be_a_name(path, name)
        # The spelled signatures are compared, so there is one spelling of each; and all keys are tried, whichever fits.
        fits = [hmac.compare_digest(_signature(key, when, name), signature) for key in self._keys]
        if not any(fits):
            raise Forbidden("the signature does not match")
        if when and now >= int(when):
            raise Forbidden("expired: this signed path was valid for a time, which is over")
        return name, int(when) if when else None


def _signature(key: bytes, when: str, name: str) -> str:
    digest = hmac.digest(key, f"{_PURPOSE}\n{when}\n{name}".encode("ascii"), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _must_be_a_name(path: str, name: str) -> None:
    try:
        parse(name)
    except BadName as error:
        raise BadName(path, len(path) - len(name) + error.at, error.why, rule=error.rule) from None


def _explain(path: str) -> NoReturn:
    if not path.startswith("/s/"):
        raise BadName(path, 0, 'expected "/s/" and a signature')
    if not re.match(f"{_SIGNATURE}/", path[3:47]):
        raise BadName(path, 3, 'expected a signature of 43 characters of A-Z a-z 0-9 - _, and "/"')
    raise BadName(path, 47, "expected a name, or an expiry of ten or eleven digits before it")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which names a stranger may ask for; `listed` holds suffixes such as `-256x256-fill.webp`, those of the presets among them."""

    renditions: Literal["any", "listed", "signed"] = "any"
    originals: Literal["public", "signed", "private"] = "public"
    listed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for suffix in self.listed:
            rendition("0" * 64, suffix)

    def allows(self, name: Name, signed: bool) -> None:
        """Return if the name may be served to who asks for it by a signed path, or by a plain one; else raise `Forbidden`."""
        refusal = self._refused_original(signed) if isinstance(name, Base) else self._refused_rendition(name.suffix, signed)
        if refusal:
            raise Forbidden(refusal)

    def _refused_original(self, signed: bool) -> str | None:
        if self.originals == "public" or (self.originals == "signed" and signed):
            return None
        return "originals need a signed path here" if self.originals == "signed" else "originals are not served here, only renditions"

    def _refused_rendition(self, suffix: str, signed: bool) -> str | None:
        if signed or self.renditions == "any" or (self.renditions == "listed" and suffix in self.listed):
            return None
        return (
            f"{suffix} is not listed here: it needs a signed path" if self.renditions == "listed" else "renditions need a signed path here"
        )


SCOPES = ("upload", "write", "commit", "sync", "admin")
"""What a token may be for: put images, say something of them, commit, look after the store; and all of it."""

SHORTEST_TOKEN = 32
_TOKEN = re.compile("[!-~]{1,200}")
_WELL_KNOWN = re.compile("change|me|pass|word|secret|admin|token|imgproxy|example|default|test|your|qwerty|1234567890|abcdef")
_UNLIKE = 8


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do: the bearer of a token of that SHA-256, in hex; `expires` is in seconds since 1970, None for never."""

    name: str
    digest: str
    scopes: frozenset[str]
    expires: float | None = None

    def allows(self, scope: str) -> bool:
        """Whether it is enough for a scope, or for `any`."""
        return scope == "any" or scope in self.scopes or "admin" in self.scopes


class Tokens:
    """The tokens that are known just now."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    def opened(self, token: str, now: float) -> Grant:
        """What the bearer of a token may do, or `Stranger`; however many are known, it takes the same time."""
        digest = digest_of(token)
        found = [grant for grant in self._grants if hmac.compare_digest(grant.digest, digest)]
        if not found or (found[0].expires is not None and now >= found[0].expires):
            raise Stranger("a token is needed here, and this is none, or none any more")
        return found[0]


def new_token() -> str:
    """A token that nobody has had, and nobody can guess."""
    return f"img_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def too_weak(token: str) -> str | None:
    """Why a token that somebody thought up must not be used; None if it may."""
    if len(token) < SHORTEST_TOKEN:
        return f"expected at least {SHORTEST_TOKEN} characters, found {len(token)}"
    if not _TOKEN.fullmatch(token):
        return "expected at most 200 characters without spaces, of ASCII alone"
    if len(set(_WELL_KNOWN.sub("", token.lower()))) < _UNLIKE:
        return "is easily guessed: let `imgproxy token add` make one"
    return None
