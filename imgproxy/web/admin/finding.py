"""Sessions as strangers name them."""

from __future__ import annotations

from imgproxy.errors import NoSession, SessionClosed
from imgproxy.meta.repository import Words
from imgproxy.meta.sessions import Session


def find(words: Words, which: str) -> Session:
    """The open session of that id or name (the default session for none); `SessionClosed` if it was committed, else `NoSession`."""
    try:
        return words.sessions.find(which)
    except NoSession:
        n = words.commits.of_session(which)
        if n is None:
            raise
        raise SessionClosed(f"session {which} was closed by commit {n}") from None


def inside(words: Words, which: str) -> Session | None:
    """The session that somebody looks into; None for what is live."""
    return find(words, which) if which else None
