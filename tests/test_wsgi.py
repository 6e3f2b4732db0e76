"""The pictures in front of other applications: Flask and Django, wrapped and served for real."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from imgproxy import wiring
from imgproxy.wsgi import Mounted
from tests.plain import png, png_size, written
from tests.serving import environment

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def flask_application() -> WSGIApplication:
    import flask

    app = flask.Flask("shop")

    @app.get("/")
    def home() -> str:
        return "the shop"

    @app.get("/images/<path:rest>")
    def images(rest: str) -> str:
        return f"the shop's own {rest}"

    return app.wsgi_app


def django_application() -> WSGIApplication:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def home(request: HttpRequest) -> HttpResponse:
        return HttpResponse("the shop")

    def images(request: HttpRequest, rest: str) -> HttpResponse:
        return HttpResponse(f"the shop's own {rest}")

    if not settings.configured:
        urls = type("urls", (), {"urlpatterns": [path("", home), path("images/<path:rest>", images)]})
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, SECRET_KEY="a secret of the test", USE_TZ=True, DEBUG=False)
        django.setup()
    application: WSGIApplication = WSGIHandler()
    return application


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(application: WSGIApplication) -> Iterator[int]:
    """The port on which an application answers while the block runs."""
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def asked(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("application", [flask_application, django_application], ids=["flask", "django"])
@pytest.mark.filterwarnings("ignore::ResourceWarning:wsgiref")
def test_pictures_are_served_in_front_and_all_else_is_left_alone(tmp_path: Path, application: object) -> None:
    env = environment(tmp_path / "var")
    house = wiring.build(wiring.settings_of(env), env)
    with written(tmp_path / "a.png", png(80, 40)).open("rb") as file:
        hash = house.images.add(file).name.hash
    house.close()
    mounted = Mounted(application(), "/images", env)  # type: ignore[operator]
    with listening(mounted) as port:
        status, body = asked(port, f"/images/{hash}-40x40.png")
        assert (status, png_size(body)) == (200, (40, 20))
        assert asked(port, "/") == (200, b"the shop")
        assert asked(port, "/images/logo.png") == (200, b"the shop's own logo.png")
        assert asked(port, f"/images/x/{hash}-40x40.png")[1].startswith(b"the shop's own")
        assert asked(port, f"/{hash}-40x40.png")[0] == 404
        assert asked(port, f"/images/{'0' * 64}-40x40.png")[0] == 404
        assert asked(port, f"/images/s/nothing/{hash}-40x40.png")[0] == 403
        assert asked(port, "/healthz")[0] == 404
    mounted.close()


def test_nothing_is_built_before_the_first_picture(tmp_path: Path) -> None:
    mounted = Mounted(flask_application(), "/images", {"IMG_DATA": str(tmp_path / "var"), "IMG_POLICY": "nonsense"})
    with listening(mounted) as port:
        assert asked(port, "/") == (200, b"the shop")
    assert not (tmp_path / "var").exists()
