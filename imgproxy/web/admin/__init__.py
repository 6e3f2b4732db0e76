"""The doors for writing: uploads, records, sessions, commits, upkeep; one table of operations, each with the scope that it needs.

status.py   how the repository is
images.py   images and what is said of them
tus.py      uploads that may be interrupted
tasks.py    fetches, renditions made ahead, and how it goes with them
manual.py   the table itself, for programs and for people
"""

from __future__ import annotations

import falcon

from imgproxy import errors
from imgproxy.web.admin import images, manual, status, tasks, tus
from imgproxy.web.admin.office import Opening
from imgproxy.web.entrance import Entrance
from imgproxy.web.health import Checks, Diary, Figures, Health, Ready, Response
from imgproxy.web.operation import Door, Operation
from imgproxy.web.problems import on_error, on_http_error, on_surprise

PAGES = (status, images, tus, tasks)
"""What the table is made of: modules with `operations`."""


def table(opening: Opening) -> tuple[Operation, ...]:
    """Every operation of these doors."""
    rows = tuple(operation for page in PAGES for operation in page.operations(opening))
    return rows + manual.operations(rows)


def owns(path: str) -> bool:
    """Whether a path belongs to these doors."""
    return path in ("/admin", "/v1") or path.startswith(("/admin/", "/v1/"))


def application(opening: Opening, entrance: Entrance, checks: Checks | None = None) -> falcon.App[falcon.Request, Response]:
    """The doors for writing; with `checks` they stand alone, and tell of their health too."""
    app: falcon.App[falcon.Request, Response] = falcon.App(response_type=Response, middleware=[Diary(), tus.Protocol()])
    app.add_error_handler(Exception, on_surprise)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(errors.Error, on_error)
    Door(table(opening), entrance).furnish(app)
    if checks is not None:
        app.add_route("/healthz", Health())
        app.add_route("/readyz", Ready(checks))
        app.add_route("/metrics", Figures())
    return app
