"""The configuration of nginx, written from the settings.

A node's nginx answers a published rendition from the local tier's directory and asks gunicorn, behind a socket, for everything else. One
with `edge_nodes` has no pictures of its own: it spreads names over other nodes, always the same name to the same one.

- `open_file_cache` makes a hit as cheap as that of a bare nginx. Its price: what was removed is still given for a second.
- An answer of gunicorn with `X-Accel-Redirect` is the file it names; if that is evicted just then, gunicorn is asked again for its bytes.
- A node with nobody behind it hangs up on an nginx that spreads names, which then asks another node; anybody else is told 503.
- A request that dies with its worker is sent again, if it is one that may be; at last by a line of its own, for all lines that are kept
  to that worker died with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgproxy import errors
from imgproxy.config import Settings
from imgproxy.edge.expressions import PLAIN_TARGET, door, pictures
from imgproxy.errors import BadSettings
from imgproxy.picture import MEDIA_TYPES
from imgproxy.web import lookups, read
from imgproxy.web.problems import cache_control
from imgproxy.wiring import published

_GUARDED = ("/admin", "/v1", "/metrics")
_NOWHERE = "/dev/null/none"
_FILES_AT_ONCE = 16
_TRIES = 3
_LEAST_SPOOL = 2**20
_SPREADING = "spreading"
"""What the nginx before several nodes says that it is."""

_REFUSALS = {
    400: ("Not a request", "the request is malformed", 0),
    403: ("Forbidden", "not from this address", 0),
    404: ("Not a name", "nothing here has that name", 60),
    405: ("Method Not Allowed", "the method is not allowed here", 0),
    408: ("Too slow", "the request did not arrive in time", 0),
    412: ("Meant for another", "the picture is not what the request was meant for", 0),
    413: ("Too large", "the request is larger than is allowed here", 0),
    414: ("Too long", "the request line is longer than any name", 0),
    500: ("A mistake of ours", "this should not have happened; it has been logged", 0),
    503: ("Cannot answer", "the server behind is not there just now", 1),
}
"""What nginx says by itself: title, detail, cache life."""
_IN_EVERY_REFUSAL = "X-Content-Type-Options"
_KINDS = {403: errors.Forbidden, 404: errors.BadName, 408: errors.TooSlow, 413: errors.TooLarge}
"""The errors of ours that it speaks for."""
_ALSO = {400: "400 494", 500: "500 501", 503: "502 503 504 ="}
"""What it has several words for."""


def configuration(settings: Settings, log_buffer: str = "4k") -> str:
    """All of nginx.conf, as these settings want it; a pipe takes 4 KB of the log in one piece, a file as much as it is given."""
    for path in (settings.data, settings.edge_socket, published(settings) or settings.data):
        if re.search(r"[^ -~]|[\"'$;{}\\]", str(path)):
            raise BadSettings([f"edge: nginx cannot be told of a path such as {path}"])
    lines = [*_main(settings), "http {", *_indented(_http(settings, log_buffer)), "}"]
    return "\n".join(lines) + "\n"


def folder(settings: Settings) -> Path:
    """Where nginx keeps what it needs while it runs."""
    return settings.data / "run" / "nginx"


def _main(settings: Settings) -> Iterator[str]:
    yield "# Written by `imgproxy nginx` from the settings: change those, and write it again. `imgproxy serve --edge` does both by itself."
    yield f"worker_processes {settings.workers or 'auto'};"
    yield "worker_rlimit_nofile 16384;"
    yield f"worker_shutdown_timeout {round(settings.grace) or 1}s;"
    yield "pcre_jit on;"
    yield f"pid {_path(folder(settings) / 'pid')};"
    yield "error_log stderr warn;"
    yield "events {"
    yield "    worker_connections 4096;"
    yield "}"


def _http(settings: Settings, log_buffer: str) -> Iterator[str]:
    tier = None if settings.edge_nodes else published(settings)
    yield from _manners(settings)
    yield from _log(settings, log_buffer)
    yield from _upstreams(settings)
    yield from _maps(settings, tier)
    yield "server {"
    yield from _indented(_server(settings, tier))
    yield "}"


def _manners(settings: Settings) -> Iterator[str]:
    yield f"types {{ {' '.join(f'{type} {ending};' for ending, type in MEDIA_TYPES.items())} }}"
    yield "default_type application/octet-stream;"
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        yield f"{kind}_temp_path {_path(folder(settings) / kind)};"
    yield "server_tokens off;"
    yield "sendfile on;"
    yield "tcp_nopush on;"
    yield "open_file_cache max=4096 inactive=10s;"
    yield "open_file_cache_valid 1s;  # so long may be given what was removed"
    yield "open_file_cache_min_uses 2;"
    yield "log_not_found off;"
    yield "keepalive_timeout 75s;"
    yield "keepalive_requests 100000;"
    yield "client_header_timeout 10s;"
    yield "client_body_timeout 30s;"
    yield "send_timeout 30s;"
    yield "reset_timedout_connection on;"
    yield "client_header_buffer_size 2k;"
    yield "large_client_header_buffers 4 4k;  # gunicorn takes no longer line"
    yield "client_max_body_size 64k;"
    yield "max_ranges 1;"
    yield "gzip on;  # of text alone: a picture is as small as it gets, and its tag is of these very bytes"
    yield "gzip_proxied any;"
    yield "gzip_vary on;"
    yield "gzip_min_length 1000;"
    yield "gzip_types application/json application/javascript text/css text/javascript text/plain;"
    if settings.edge_proxies:
        yield from (f"set_real_ip_from {address};" for address in settings.edge_proxies)
        yield "real_ip_header X-Forwarded-For;"
        yield "real_ip_recursive on;"


def _log(settings: Settings, buffer: str) -> Iterator[str]:
    if settings.log_level in ("warning", "error"):
        yield "access_log off;"
        return
    words = {
        "timestamp": '"$time_iso8601"',
        "level": '"info"',
        "event": '"answered at the edge"',
        "request": '"$told_id"',
        "method": '"$request_method"',
        "target": '"$request_uri"',
        "status": "$status",
        "behind": '"$upstream_status"',
        "seconds": "$request_time",
        "bytes": "$body_bytes_sent",
    }
    line = ",".join(f'"{word}":{value}' for word, value in words.items())
    yield f"log_format told escape=json '{{{line}}}';"
    yield f"access_log /dev/stdout told buffer={buffer} flush=1s;"


def _upstreams(settings: Settings) -> Iterator[str]:
    if not settings.edge_nodes:
        server = f'    server "unix:{settings.edge_socket}" max_fails=0;'
        again = [server] * _TRIES
        yield from ("upstream house {  # a request that dies with its worker is sent again", *again, "    keepalive 32;", "}")
        yield from ("upstream desk {  # no lines are kept", *again, "}")
        return
    yield "upstream house {"
    yield "    hash $spread consistent;"
    yield from (f"    server {node} max_fails=1 fail_timeout=2s;" for node in settings.edge_nodes)
    yield from ("    keepalive 32;", "}")
    yield "upstream anybody {  # when all seem to be away, as when one goes just after another has come back"
    yield from (f"    server {node} max_fails=0;" for node in settings.edge_nodes)
    yield "}"
    # Who is away is tried each time: who has just come back must not be thought away when the other one goes, for nothing is asked twice.
    yield "upstream desk {  # what people say is said to one node; the others stand in for it"
    first, *others = settings.edge_nodes
    yield f"    server {first} max_fails=0;"
    yield from (f"    server {node} max_fails=0 backup;" for node in others)
    yield "}"


# ---- what a request line is


def _maps(settings: Settings, tier: Path | None) -> Iterator[str]:
    yield from _map(
        "$http_x_request_id", "$told_id", '"$pid-$connection-$connection_requests-$msec"', {"^[A-Za-z0-9._-]{1,64}$": "$http_x_request_id"}
    )
    yield from _map("$request", "$refused", "1", {PLAIN_TARGET: '""'})
    yield from _map("$request", "$unknown", "1", {door(path): '""' for path, _ in (*read.ROUTES, *lookups.ROUTES)})
    if settings.edge_nodes:
        yield from _map("$request_uri", "$spread", "$request_uri", {"/(?<last>[^/?]+)$": "$last"})
    if tier is None:
        return
    files = dict.fromkeys(pictures(settings), f'"{tier}/$aa/$bb/$name"')
    if files:
        asked = "$http_range|$request|$http_if_match$http_if_unmodified_since|$http_if_modified_since|$http_if_none_match"
        yield from _map(f'"{asked}"', "$picture", _NOWHERE, files)
    yield from _map("$upstream_http_server_timing", "$told_tier", "$upstream_http_server_timing", {"": "'tier;desc=\"disk\"'"})
    yield from _map("$uri", "$tagged", '""', {"^/~tier/../../(?<tag>[0-9a-f]{64})-": "$tag"})


def _map(of: str, into: str, default: str, cases: dict[str, str]) -> Iterator[str]:
    yield f"map {of} {into} {{"
    yield f"    default {default};"
    for case, value in cases.items():
        yield f'    "{"~" * bool(case)}{case}" {value};'
    yield "}"


# ---- the places


def _server(settings: Settings, tier: Path | None) -> Iterator[str]:
    for address in settings.bind:
        yield f"listen {'*' * address.startswith(':')}{address};"
    yield "merge_slashes off;"
    yield "recursive_error_pages on;"
    yield from _told_by_us("502 ")
    yield from _proxying(settings)
    for status in _REFUSALS:
        form, refusal = _refusal(status)
        told = _silence() if status == 503 else _told_of_a_picture(settings) if status == 412 and tier and pictures(settings) else ()
        yield from _place(f"= /~problem/{status}", ["internal;", *form, *told, *refusal])
    for path in _GUARDED:
        for where in (f"= {path}", f"^~ {path}/"):
            yield from _place(where, _guarded(settings))
    if settings.edge_nodes:
        yield from _place("/", [*_asked_behind(), *_told_by_us(), "error_page 502 = @anybody;"])
        yield from _place("@anybody", ["proxy_pass http://anybody;"])
        return
    asked = [*_asked_behind(), *_told_by_us(), "error_page 502 = @afresh;"]
    yield from _place("@afresh", ["proxy_pass http://desk;"])
    if tier is None:
        yield from _place("/", asked)
        return
    if not pictures(settings):
        yield from _place("/", asked)
    else:
        yield from _place("~ ^", _pictures_here(settings))
        yield from _place("@house", asked)
    yield from _place(f"^~ {read.ACCELERATED}", _accelerated(settings, tier))
    yield from _place("@bytes", [*_forwarded("bytes"), "proxy_pass http://house$request_uri;"])


def _silence() -> Iterator[str]:
    """Who spreads names hears nothing at all from a node with nobody behind, and asks another one."""
    yield from (f'if ($http_x_edge = "{_SPREADING}") {{', "    return 444;", "}")


def _told_of_a_picture(settings: Settings) -> Iterator[str]:
    """What is said of a picture even when it is refused."""
    yield from (f"add_header {name} '{value}' always;" for name, value in read.headers(settings.cors) if name != _IN_EVERY_REFUSAL)
    yield from (f"add_header {tag} $hash always;" for tag in settings.tags)


def _told_by_us(also: str = "") -> Iterator[str]:
    """The pages of our refusals; `also` are statuses of those behind that count as 503."""
    for status in _REFUSALS:
        yield f"error_page {_ALSO.get(status, status)} /~problem/{status};".replace("502 ", also)


def _place(where: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"location {where} {{"
    yield from _indented(lines)
    yield "}"


def _proxying(settings: Settings) -> Iterator[str]:
    yield from _forwarded(_SPREADING if settings.edge_nodes else "")
    yield "proxy_http_version 1.1;"
    yield "proxy_connect_timeout 2s;"
    yield f"proxy_read_timeout {round(settings.patience) + 10}s;"
    yield "proxy_buffers 8 32k;"
    yield f"proxy_max_temp_file_size {max(settings.limits.file_bytes, _LEAST_SPOOL)};  # as much as an original that a slow reader takes"
    if settings.edge_nodes:
        yield "proxy_next_upstream error timeout;  # a node that was switched off answers nothing at all"
        yield "proxy_next_upstream_timeout 8s;"
    else:
        yield "proxy_next_upstream error;"
    yield f"proxy_next_upstream_tries {_TRIES};"


def _forwarded(edge: str) -> Iterator[str]:
    """What those behind are told beside the request; `edge` is how they should answer, if not as always."""
    headers = {
        "Host": "$http_host",
        "X-Forwarded-For": "$remote_addr",
        "X-Forwarded-Proto": "$scheme",
        "X-Request-Id": "$told_id",
        "X-Edge": f'"{edge}"',
        "Connection": '""',
    }
    return (f"proxy_set_header {name} {value};" for name, value in headers.items())


def _pictures_here(settings: Settings) -> Iterator[str]:
    yield "alias $picture;"
    yield f"add_header Cache-Control '{read.FOR_EVER}';"
    yield from _told(settings, "'tier;desc=\"disk\"'", "$hash")
    yield "error_page 403 404 405 500 = @house;"
    yield "error_page 412 /~problem/412;  # of a filter, behind which nobody else can be asked any more"


def _accelerated(settings: Settings, tier: Path) -> Iterator[str]:
    yield "internal;"
    yield f'alias "{tier}/";'
    yield from _told(settings, "$told_tier", "$tagged")
    yield "error_page 403 404 500 = @bytes;"


def _told(settings: Settings, tier: str, hash: str) -> Iterator[str]:
    """What is said of a picture beside what nginx says of a file."""
    yield from (f"add_header {name} '{value}';" for name, value in read.headers(settings.cors))
    yield f"add_header Server-Timing {tier};"
    yield "add_header X-Request-Id $told_id;"
    yield from (f"add_header {tag} {hash};" for tag in settings.tags)


def _asked_behind() -> Iterator[str]:
    form, refusal = _refusal(404)
    yield from form
    yield "if ($unknown) {"
    yield from _indented(refusal)
    yield "}"
    yield "proxy_pass http://house;"


def _guarded(settings: Settings) -> Iterator[str]:
    """What only some addresses may ask for: writing, and figures."""
    yield from ("if ($refused) {", "    return 404;", "}")
    yield from (f"allow {address};" for address in settings.edge_admin)
    yield "deny all;"
    yield f"client_max_body_size {settings.limits.file_bytes * _FILES_AT_ONCE};"
    yield "proxy_request_buffering off;"
    yield "proxy_read_timeout 300s;"
    yield "proxy_pass http://desk;"


def _refusal(status: int) -> tuple[list[str], list[str]]:
    """What nginx says by itself: lines for the place, and lines that may also stand under a condition."""
    title, detail, life = _REFUSALS[status]
    problem = json.dumps(
        {"type": errors.urn(_KINDS[status]) if status in _KINDS else "about:blank", "title": title, "status": status, "detail": detail}
    )
    headers = {
        "Cache-Control": f"'{cache_control(status, life)}'",
        _IN_EVERY_REFUSAL: "nosniff",
        "X-Request-Id": "$told_id",
        **({"Retry-After": "1"} if status == 503 else {}),
    }
    told = [f"add_header {name} {value} always;" for name, value in headers.items()]
    return ["types { }", "default_type application/problem+json;"], [*told, f"return {status} '{problem}';"]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _path(path: Path) -> str:
    return f'"{path}"'
