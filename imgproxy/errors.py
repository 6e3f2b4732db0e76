"""Every way in which this project refuses or fails.

    Error
    |-- BadName          the text is no name; knows the place and what was expected there
    |-- BadSettings      the settings are wrong; carries every mistake at once
    |-- Forbidden        the name is right, but you may not (policy, signature, expiry)
    |-- Stranger         no token, or none that is known here
    |-- TooManyTries     so many wrong tokens came from there that none is looked at for a while
    |-- Missing          nothing of that name here (original, watermark profile)
    |-- BadBody          what was sent is broken, or ended too early
    |-- TooLarge         what was sent is more than is taken
    |-- TooSlow          what was sent came too slowly
    |-- WrongType        what was sent is of no type that is taken there
    |-- WrongVersion     the protocol is spoken here in another version
    |-- Changed          the record is no longer the one that the asker has seen
    |-- NotAnImage       the bytes are no image, or not the image they say they are
    |-- CannotRead       a known type that this libvips cannot decode, or that the settings refuse
    |-- CannotWrite      a known format that this libvips cannot encode
    |-- Damaged          an image, but broken
    |-- TooMuch          beyond a limit; the text names the limit
    |-- Impossible       the name asks for what this original does not have (a page, a rectangle)
    |-- Busy             no capacity just now; come back after `retry_after` seconds
    |-- RendererLost     the process that rendered died or overran its deadline
    |-- BadRecord        a field of a record, an edit or a search is wrong; knows which
    |-- Conflict         others changed the same records meanwhile; names them, and nothing was changed
    |-- Unstored         records name originals that the store does not have; names them, and nothing was changed
    |-- OutOfStep        an upload stands elsewhere than the asker believes
    |-- Locked           somebody else is at the same upload just now
    |-- Mismatch         bytes do not have the checksum that came with them
    |-- NoSession        no such session is open
    |-- SessionClosed    the session is just being committed and takes no more changes
    |-- Outdated         the moment that a search began at is no longer kept; search again
    |-- NotTheWriter     another node writes this repository; knows who
    |-- Forked           what the store holds is not what was committed: two writers have met; nothing goes on before a person looked
    |-- WordsLost        the local database is damaged or gone; starting again restores it
    |-- BadAddress       a URL that is not asked: its scheme, its host, its port, or where its name leads
    |-- BadTask          a task that makes no sense; knows which field
    |-- NoTask           no such task is known
    |-- TaskUnfinished   the task is not done yet
    |-- CallFailed       another server failed us; knows whether asking again makes sense
    |   `-- NoConnection it could not even be reached
    `-- StoreTrouble
        |-- StoreDown    the store cannot say (down, slow); absence is never claimed
        |   |-- BrokenOff       it was handing something over, and stopped
        |   `-- StoreRefused    it would not let us in, and will not until somebody changes a setting or a permission
        |-- StoreLied    the store answered, but not with what was stored
        |   `-- Rotten   an original whose bytes are not those of its name
        `-- StoreFull    no room to write

Absence is a value (`None`), failure is an exception. What an error becomes in HTTP is decided at the door, in one table.
On the wire an error is named by its class (`urn`), so that a client of ours can raise it again.
`str(error)` is one or more lines fit for a stranger's eyes: no paths, no addresses, no secrets.
"""

from __future__ import annotations

import re


class Error(Exception):
    """Anything this project refuses or fails at."""


def urn(kind: type[Error]) -> str:
    """What names a kind of error on the wire.

    >>> urn(NotAnImage)
    'urn:imgproxy:not-an-image'
    """
    return "urn:imgproxy:" + re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


class BadName(Error):
    """The text is no name: `why` it is not, and `at` which position of `text` that shows.

    `rule` tells the two ways apart: the text has the syntax of a name and only a rule refuses it, or it has not.
    """

    def __init__(self, text: str, at: int, why: str, rule: bool = False) -> None:
        super().__init__(text, at, why, rule)
        self.text = text
        self.at = at
        self.why = why
        self.rule = rule

    def __str__(self) -> str:
        """Three lines: what was expected, the text, a caret under the place."""
        start = max(0, self.at - 90)
        line = "".join(c if " " <= c <= "~" else "?" for c in self.text[start : self.at + 60])
        return f"{self.why}\n{line}\n{' ' * (self.at - start)}^"


class BadSettings(Error):
    """The settings are wrong; `mistakes` holds every one of them, each beginning with the setting's name."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


class Forbidden(Error):
    """The name is right, but this asker may not have it."""


class Stranger(Error):
    """No token, or none that is known here."""


class TooManyTries(Error):
    """Too many wrong tokens came from one place; come back after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many attempts with wrong tokens")
        self.retry_after = retry_after


class BadBody(Error):
    """What was sent is broken, or ended too early."""


class TooLarge(Error):
    """What was sent is more than is taken."""


class TooSlow(Error):
    """What was sent came too slowly."""


class WrongType(Error):
    """What was sent is of no type that is taken there."""


class WrongVersion(Error):
    """The protocol is spoken here in another version."""


class Changed(Error):
    """The record is no longer the one that the asker has seen."""


class Missing(Error):
    """Nothing of that name is here."""


class NotAnImage(Error):
    """The bytes are no image that we know, or not the image that they claim to be."""


class CannotRead(Error):
    """A known type that cannot be decoded here."""


class CannotWrite(Error):
    """A known format that cannot be encoded here."""


class Damaged(Error):
    """An image whose bytes are broken."""


class TooMuch(Error):
    """Beyond a limit; the text names it."""


class Impossible(Error):
    """The name asks for what this original does not have."""


class Busy(Error):
    """No capacity just now."""

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RendererLost(Error):
    """The process that was rendering died, or was killed at its deadline."""


class StoreTrouble(Error):
    """A store could not do what was asked."""


class StoreDown(StoreTrouble):
    """The store cannot say: it is down, slow, or refused us."""


class BrokenOff(StoreDown):
    """The store stopped in the middle of what it was handing over."""


class StoreRefused(StoreDown):
    """The store would not let us in: a setting or a permission is wrong."""


class StoreLied(StoreTrouble):
    """The store answered with something else than what was stored."""


class Rotten(StoreLied):
    """An original is there, and its bytes are not those of its name."""


class StoreFull(StoreTrouble):
    """There is no room to write."""


class _AboutField(Error):
    """A field is wrong: which one, and why; an empty field means the whole."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)
        self.field = field
        self.why = why

    def __str__(self) -> str:
        return f"{self.field}: {self.why}" if self.field else self.why


class BadRecord(_AboutField):
    """A field of a record, an edit or a search is wrong."""


_NAMED = 20


class _AboutRecords(Error):
    """Something is the matter with some records; `records` holds their hashes (of very many, the first ones)."""

    def __init__(self, records: list[str], why: str) -> None:
        super().__init__(records, why)
        self.records = records
        self.why = why

    def __str__(self) -> str:
        more = [f"and {len(self.records) - _NAMED} more"] if len(self.records) > _NAMED else []
        return "\n".join([self.why, *self.records[:_NAMED], *more])


class Conflict(_AboutRecords):
    """Others changed the same records meanwhile."""


class Unstored(_AboutRecords):
    """Records name originals that the store does not have."""


class OutOfStep(Error):
    """An upload stands elsewhere than the asker believes."""


class Locked(Error):
    """Somebody else is at the same upload just now."""


class Mismatch(Error):
    """Bytes do not have the checksum that came with them."""


class NoSession(Error):
    """No such session is open."""


class SessionClosed(Error):
    """The session takes no more changes: it is just being committed."""


class Outdated(Error):
    """The moment that a search began at is no longer kept."""


class NotTheWriter(Error):
    """Another node writes this repository; `holder` is its name."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder

    def __str__(self) -> str:
        return f"this repository is being written by {self.holder}"


class Forked(Error):
    """What the store holds is not what was committed."""


class WordsLost(Error):
    """The local database is damaged or gone."""


class BadAddress(Error):
    """A URL that is not asked; `where` is the address that its name leads to, if it came to that: for the log, and for nobody else."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(why, where)
        self.why = why
        self.where = where

    def __str__(self) -> str:
        return self.why


class BadTask(_AboutField):
    """A field of a task is wrong."""


class NoTask(Error):
    """No such task is known."""


class TaskUnfinished(Error):
    """The task is not done yet."""


class CallFailed(Error):
    """Another server failed us; `again` says whether asking it again makes sense."""

    def __init__(self, why: str, again: bool = True) -> None:
        super().__init__(why, again)
        self.why = why
        self.again = again

    def __str__(self) -> str:
        return self.why


class NoConnection(CallFailed):
    """The other server could not even be reached."""
