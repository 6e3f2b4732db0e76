"""The part of Keystone v3 that hands out tokens, before a real Swift: who proves who they are gets a token that this Swift accepts.

The tokens are Swift's own, with their own life, so a lapsed one is refused by Swift itself. Proofs are a password with a project, or an
application credential. The catalogue offers the real Swift in one region by one interface; everything else leads nowhere.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from imgproxy.stores.swift import TempAuth

PASSWORD = {
    "methods": ["password"],
    "password": {"user": {"name": "alice", "domain": {"id": "default"}, "password": "wonder"}},
}
CREDENTIAL = {"methods": ["application_credential"], "application_credential": {"id": "cred-1", "secret": "rabbit"}}
PROJECT = {"project": {"name": "pictures", "domain": {"id": "default"}}}
REGION = "north"
NOWHERE = "http://127.0.0.1:9/nowhere"


class Identity:
    """An identity service on loopback; `given` counts its tokens."""

    def __init__(self, swift: TempAuth) -> None:
        self._swift = swift
        self.given = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _visitors(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v3"

    def __enter__(self) -> Identity:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, asked: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        """Status, token and body for what is asked to `/v3/auth/tokens`."""
        proof, scope = asked["auth"]["identity"], asked["auth"].get("scope")
        if not (proof == CREDENTIAL and scope is None) and not (proof == PASSWORD and scope == PROJECT):
            return (
                401,
                "",
                {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}},
            )
        entry = self._swift.enter((5, 5))
        self.given += 1
        return 201, entry.token, {"token": self._token(proof["methods"], entry.url)}

    def _token(self, methods: list[str], url: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        offers = [
            {"id": "1", "interface": "public", "region": "south", "region_id": "south", "url": NOWHERE},
            {"id": "2", "interface": "internal", "region": REGION, "region_id": REGION, "url": url},
            {"id": "3", "interface": "public", "region": REGION, "region_id": REGION, "url": NOWHERE},
        ]
        return {
            "methods": methods,
            "user": {"id": "u1", "name": "alice", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p1", "name": "pictures", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": "r1", "name": "member"}],
            "issued_at": f"{now:%Y-%m-%dT%H:%M:%S.000000Z}",
            "expires_at": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.000000Z}",
            "catalog": [{"id": "s1", "type": "object-store", "name": "swift", "endpoints": offers}],
        }


def _visitors(identity: Identity) -> type[BaseHTTPRequestHandler]:
    class Visitor(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = self.path == "/v3/auth/tokens"
            status, token, said = identity.answer(asked) if right else (404, "", {"error": {"code": 404}})
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if token:
                self.send_header("X-Subject-Token", token)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Nobody reads it."""

    return Visitor
