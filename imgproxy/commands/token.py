"""The commands for tokens: who may write by HTTP, and what."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from imgproxy.security import SCOPES
from imgproxy.spelling import seconds

if TYPE_CHECKING:
    from imgproxy.tokens import TokenFile


def _tokens() -> TokenFile:
    from imgproxy import wiring

    return wiring.tokens_of(wiring.settings_of(os.environ), os.environ)


@click.group("token")
def token_group() -> None:
    """Make, list and revoke the tokens that open the doors for writing."""


@token_group.command("add")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="What it is for; may be repeated.")
@click.option("--expires", default="", help="After how long it opens nothing any more, such as 90d; never, if that is not said.")
def token_add(name: str, scopes: tuple[str, ...], expires: str) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    try:
        until = time.time() + seconds(expires) if expires else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from error
    click.echo(_tokens().add(name, scopes, until))


@token_group.command("list")
def token_list() -> None:
    """Print every token: its name, its scopes, and until when it opens anything."""
    for grant in _tokens().all():
        until = "never" if grant.expires is None else datetime.fromtimestamp(grant.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"{grant.name}\t{','.join(sorted(grant.scopes))}\t{until}")


@token_group.command("revoke")
@click.argument("name")
def token_revoke(name: str) -> None:
    """Let a token open nothing any more, from this moment on, in every process."""
    _tokens().revoke(name)


COMMANDS = (token_group,)
