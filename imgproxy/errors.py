"""Every way in which this project refuses or fails.

    Error
    |-- BadName          the text is no name; knows the place and what was expected there
    |-- BadSettings      the settings are wrong; carries every mistake at once
    |-- Forbidden        the name is right, but you may not (policy, signature, expiry)
    |-- Missing          nothing of that name here (original, watermark profile)
    |-- NotAnImage       the bytes are no image, or not the image they say they are
    |-- CannotRead       a known type that this libvips cannot decode, or that the settings refuse
    |-- CannotWrite      a known format that this libvips cannot encode
    |-- Damaged          an image, but broken
    |-- TooMuch          beyond a limit; the text names the limit
    |-- Impossible       the name asks for what this original does not have (a page, a rectangle)
    |-- Busy             no capacity just now; come back after `retry_after` seconds
    |-- RendererLost     the process that rendered died or overran its deadline
    `-- StoreTrouble
        |-- StoreDown    the store cannot say (down, slow, refused us); absence is never claimed
        |-- StoreLied    the store answered, but not with what was stored
        `-- StoreFull    no room to write

Absence is a value (`None`), failure is an exception. What an error becomes in HTTP is decided at the door, in one table.
`str(error)` is one or more lines fit for a stranger's eyes: no paths, no addresses, no secrets.
"""

from __future__ import annotations


class Error(Exception):
    """Anything this project refuses or fails at."""


class BadName(Error):
    """The text is no name: `why` it is not, and `at` which position of `text` that shows."""

    def __init__(self, text: str, at: int, why: str) -> None:
        super().__init__(text, at, why)
        self.text = text
        self.at = at
        self.why = why

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


class StoreLied(StoreTrouble):
    """The store answered with something else than what was stored."""


class StoreFull(StoreTrouble):
    """There is no room to write."""
