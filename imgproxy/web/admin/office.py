"""What the doors for writing hold in their hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imgproxy import observe
from imgproxy.images import Images
from imgproxy.jobs import Jobs
from imgproxy.meta.repository import Words
from imgproxy.resumable import Spool
from imgproxy.security import Policy
from imgproxy.stores import Store
from imgproxy.uploads import Uploads
from imgproxy.urls import Urls
from imgproxy.web.late import Late
from imgproxy.web.spool import Inbox


@dataclass(frozen=True, slots=True)
class Office:
    """The services of one node for whoever writes.

    `derived` is where renditions are kept in the store, if they are; `inbox` is for files on their way in, `partial` for
    uploads in several requests.
    """

    words: Words
    uploads: Uploads
    images: Images
    base: Store
    derived: Store | None
    urls: Urls
    presets: Mapping[str, str]
    policy: Policy
    inbox: Inbox
    partial: Spool
    jobs: Jobs

    def let_go(self, most: int | None = None) -> None:
        """Remove deleted originals, unless they are more than `most`; what cannot be done now is done later."""
        hindered = self.words.farewell.begin(most)
        if hindered:
            observe.event(hindered, level="warning")


Opening = Late[Office]
"""The office, which opens a moment after the server started, or when its store is there again."""
