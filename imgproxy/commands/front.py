"""The commands round a server: nginx alone in front of several nodes, and a look from outside whether all is well."""

from __future__ import annotations

import http.client
import os
import sys
import time
from pathlib import Path

import click

from imgproxy.knocking import reached

_SECONDS = 4.0
_PULSE = 30.0


@click.command()
def edge() -> None:
    """Spread names over the nodes of `edge_nodes` with nginx, and follow them when their addresses change."""
    from imgproxy import wiring
    from imgproxy.edge import spreading

    sys.exit(spreading.spread(wiring.settings_of(os.environ)))


@click.command()
@click.option("--ready", is_flag=True, help="Whether it can serve pictures, and not only answer.")
@click.option("--worker", is_flag=True, help="How the worker of this node is, instead.")
def health(ready: bool, worker: bool) -> None:
    """Ask the server of these settings how it is; leaves with 1 if it is not well."""
    from imgproxy import config

    settings = config.load(None, os.environ)
    if worker:
        _feel(settings.data / "run" / "worker")
        return
    address = settings.bind[0]
    try:
        status, said = _asked(address, "/readyz" if ready else "/healthz")
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"{address}: {error}") from error
    click.echo(said.strip())
    if status != 200:
        sys.exit(1)


def _feel(pulse: Path) -> None:
    try:
        since = time.time() - pulse.stat().st_mtime
    except FileNotFoundError:
        raise click.ClickException("no worker was ever here") from None
    if since > _PULSE:
        raise click.ClickException(f"the worker was well {since:.0f} seconds ago")
    click.echo("ok")


def _asked(address: str, path: str) -> tuple[int, str]:
    line = http.client.HTTPConnection("localhost", timeout=_SECONDS)
    line.sock = reached(address, _SECONDS)
    try:
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, answer.read(65_536).decode("utf-8", "replace")
    finally:
        line.close()


COMMANDS = (edge, health)
