"""The applications that a WSGI server runs, and `Mounted`, which puts the pictures in front of any other application.

gunicorn "imgproxy.wsgi:both()"        # pictures, and the doors for writing where the setting `admin` has them
gunicorn "imgproxy.wsgi:read()"        # pictures alone
gunicorn "imgproxy.wsgi:admin()"       # the doors for writing alone

from imgproxy.wsgi import Mounted
application = Mounted(application, "/images")        # Flask, Django, anything that speaks WSGI
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from imgproxy import observe, wiring
from imgproxy.errors import BadName
from imgproxy.grammar import parse
from imgproxy.web import admin as admin_door
from imgproxy.web import read as door
from imgproxy.web.target import raw_target
from imgproxy.wiring import House

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from imgproxy.config import Settings
    from imgproxy.web.admin.office import Opening


def read(environ: Mapping[str, str] | None = None) -> WSGIApplication:
    """The public application, by the settings of this process."""
    environ, settings = _settings(environ)
    house = wiring.build(settings, environ)
    return door.application(house.images, house.guards, house.checks, house.manner, house.lookups)


def admin(environ: Mapping[str, str] | None = None) -> WSGIApplication:
    """The doors for writing, alone."""
    environ, settings = _settings(environ)
    house, opening = wiring.house_and_opening(settings, environ)
    _begin(settings, opening)
    return admin_door.application(opening, wiring.entrance_of(settings, environ), house.checks, settings.body_seconds)


def both(environ: Mapping[str, str] | None = None) -> WSGIApplication:
    """The public application, and the doors for writing where the setting `admin` has them."""
    environ, settings = _settings(environ)
    if settings.admin == "off":
        return read(environ)
    house, opening = wiring.house_and_opening(settings, environ)
    public = door.application(house.images, house.guards, house.checks, house.manner, house.lookups)
    _begin(settings, opening)
    if settings.admin == "beside":
        return Beside(public, admin_door.application(opening, wiring.entrance_of(settings, environ), None, settings.body_seconds))
    return Apart(
        public, admin_door.application(opening, wiring.entrance_of(settings, environ), house.checks, settings.body_seconds), settings.admin
    )


def _settings(environ: Mapping[str, str] | None) -> tuple[Mapping[str, str], Settings]:
    environ = os.environ if environ is None else environ
    settings = wiring.settings_of(environ)
    observe.configure(settings.log_level, settings.log_format)
    return environ, settings


def _begin(settings: Settings, opening: Opening) -> None:
    """Open the office and give this process its chance of the clerk, who stops when it does."""
    clerk = wiring.clerk_of(settings)
    opening.then(lambda office: clerk.start(office.words))
    atexit.register(clerk.stop)
    opening.start()


class Beside:
    """The doors for writing beside the public ones, told apart by their paths."""

    def __init__(self, public: WSGIApplication, writing: WSGIApplication) -> None:
        self._public = public
        self._writing = writing

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        return (self._writing if admin_door.owns(environ.get("PATH_INFO", "")) else self._public)(environ, start_response)


class Apart:
    """The doors for writing at an address of their own: what comes in there sees nothing else, and nobody else sees them."""

    def __init__(self, public: WSGIApplication, writing: WSGIApplication, address: str) -> None:
        self._public = public
        self._writing = writing
        self._end = address.removeprefix("unix:") if address.startswith("unix:") else int(address.rpartition(":")[2])

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        name = environ["gunicorn.socket"].getsockname()
        came_in = name if isinstance(name, str) else name[1]
        return (self._writing if came_in == self._end else self._public)(environ, start_response)


class Mounted:
    """Answers what is an image name below `mount`, and leaves everything else to the application that it wraps.

    The house is built at the first picture, in the process that is asked for it: servers may fork before.
    """

    def __init__(self, application: WSGIApplication, mount: str = "", environ: Mapping[str, str] | None = None) -> None:
        self._application = application
        self._mount = mount.rstrip("/")
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._built: tuple[int, House, WSGIApplication] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, or hand it on."""
        if _is_picture(raw_target(environ), self._mount):
            return self._pictures()(environ, start_response)
        return self._application(environ, start_response)

    def close(self) -> None:
        """Let go of the renderers, if any were needed."""
        if self._built is not None:
            self._built[1].close()

    def _pictures(self) -> WSGIApplication:
        with self._lock:
            if self._built is None or self._built[0] != os.getpid():
                house = wiring.build(wiring.settings_of(self._environ), self._environ)
                manner = replace(house.manner, mount=self._mount)
                self._built = (os.getpid(), house, door.pictures(house.images, house.guards, manner))
            return self._built[2]


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
