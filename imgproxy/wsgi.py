"""The applications that a WSGI server runs: `read()`, and `Mounted`, which puts the pictures in front of any other application.

    gunicorn "imgproxy.wsgi:read()"

    from imgproxy.wsgi import Mounted
    application = Mounted(application, "/images")        # Flask, Django, anything that speaks WSGI
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from imgproxy import wiring
from imgproxy.errors import BadName
from imgproxy.grammar import parse
from imgproxy.web import read as door
from imgproxy.web.target import raw_target

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def read(environ: Mapping[str, str] | None = None) -> WSGIApplication:
    """The public application, by the settings of this process."""
    house = wiring.build(wiring.settings_of(os.environ if environ is None else environ))
    return door.application(house.images, house.guards, house.checks, house.manner)


class Mounted:
    """Answers what is an image name below `mount`, and leaves everything else to the application that it wraps.

    The house is built at the first picture, in the process that is asked for it: servers may fork before.
    """

    def __init__(self, application: WSGIApplication, mount: str = "", environ: Mapping[str, str] | None = None) -> None:
        self._application = application
        self._mount = mount.rstrip("/")
        self._environ = environ
        self._built: tuple[int, WSGIApplication] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, or hand it on."""
        if _is_picture(raw_target(environ), self._mount):
            return self._pictures()(environ, start_response)
        return self._application(environ, start_response)

    def _pictures(self) -> WSGIApplication:
        built = self._built
        if built is None or built[0] != os.getpid():
            house = wiring.build(wiring.settings_of(os.environ if self._environ is None else self._environ))
            app = door.application(house.images, house.guards, {}, replace(house.manner, mount=self._mount, figures=False))
            built = self._built = (os.getpid(), app)
        return built[1]


def _is_picture(target: str, mount: str) -> bool:
    """Whether the last segment of a target below the mount is a name, plain or signed."""
    if not target.startswith(f"{mount}/"):
        return False
    *before, name = target[len(mount) + 1 :].split("/")
    if before and (before[0] != "s" or len(before) > 3):
        return False
    try:
        parse(name)
    except BadName:
        return False
    return True
