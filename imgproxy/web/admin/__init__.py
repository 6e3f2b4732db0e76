"""The doors for writing: uploads, records, sessions, commits, upkeep; one table of operations, each with the scope that it needs.

status.py     how the repository is
receiving.py  uploads
images.py     images found, shown, described, deleted
sessions.py   sessions opened, compared, discarded
commits.py    commits made, listed, gone back on
upkeep.py     sync, verify, snapshots
tus.py        uploads that may be interrupted
tasks.py      fetches, renditions made ahead, and how it goes with them
manual.py     the table itself, for programs and for people

The versioned interface (`web/v1`) stands in the same table.
"""

from __future__ import annotations

import falcon

from imgproxy import errors
from imgproxy.web import v1
from imgproxy.web.admin import commits, images, manual, receiving, sessions, status, tasks, tus, upkeep
from imgproxy.web.admin.office import Opening
from imgproxy.web.body import SECONDS
from imgproxy.web.entrance import Entrance
from imgproxy.web.health import Checks, Diary, Figures, Health, Ready, Response
from imgproxy.web.operation import Door, Operation
from imgproxy.web.problems import on_error, on_http_error, on_surprise

PAGES = (status, receiving, tus, images, sessions, commits, upkeep, tasks)
"""What the table is made of: modules with `operations`."""


def table(opening: Opening) -> tuple[Operation, ...]:
    """Every operation of these doors."""
    rows = tuple(operation for page in (*PAGES, *v1.PAGES) for operation in page.operations(opening))
    return rows + manual.operations(rows)


def owns(path: str) -> bool:
    """Whether a path belongs to these doors."""
    return path in ("/admin", "/v1") or path.startswith(("/admin/", "/v1/"))


def application(
    opening: Opening, entrance: Entrance, checks: Checks | None = None, body_seconds: float = SECONDS
) -> falcon.App[falcon.Request, Response]:
    """The doors for writing; with `checks` they stand alone, and tell of their health too."""
    app: falcon.App[falcon.Request, Response] = falcon.App(response_type=Response, middleware=[Diary(), tus.Protocol()])
    app.add_error_handler(Exception, on_surprise)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(errors.Error, on_error)
    Door(table(opening), entrance, body_seconds).furnish(app)
    if checks is not None:
        app.add_route("/healthz", Health())
        app.add_route("/readyz", Ready(checks))
        app.add_route("/metrics", Figures())
    return app
