"""A repository on another machine, asked over HTTP.

    from imgproxy.client import Client

    with Client("https://images.example.org", token) as client:
        with client.session("holidays", message="The first day") as session:
            kept = session.upload("sunset.jpg", title="Sunset", tags=["sun", "sea"])
        for record in client.search(words="sun*"):
            print(record.hash, record.title)

A session commits when its block ends well, and forgets what was changed when it does not. What the server refuses is raised as the error
of `imgproxy.errors` that it was there; that it could not be reached, or broke off, as `CallFailed`. The token is in no text of a client.
Loads no libvips.
"""

from __future__ import annotations

from imgproxy.client.answers import Commit, Difference, Found, Kept, Record, Session, Status, Synced, Task, Verified
from imgproxy.client.asking import Patience
from imgproxy.client.client import Client
from imgproxy.client.session import OpenSession

__all__ = [
    "Client",
    "Commit",
    "Difference",
    "Found",
    "Kept",
    "OpenSession",
    "Patience",
    "Record",
    "Session",
    "Status",
    "Synced",
    "Task",
    "Verified",
]
