"""The commands for words: sessions, commits, search, restore, sync, verify, import."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgproxy.errors import BadRecord, Busy, Error, Missing, StoreTrouble

if TYPE_CHECKING:
    from imgproxy.meta.commits import Commit
    from imgproxy.meta.query import Query
    from imgproxy.meta.record import Record
    from imgproxy.wiring import Desk

_SESSION = click.option("--session", default="", help="The id or name of a session; the default session if none is named.")
_AUTHOR = click.option("--author", default=lambda: os.environ.get("USER", ""), help="Who does this; the user's name if nobody is named.")
_SUFFIXES = frozenset(".avif .gif .heic .jp2 .jpe .jpeg .jpg .jxl .png .svg .tif .tiff .webp".split())


_ASKING = (
    click.option("--tag", "tags", multiple=True, help="With this tag; may be repeated."),
    click.option("--from", "taken_from", default="", help="Taken at this time or day, or later."),
    click.option("--to", "taken_to", default="", help="Taken at this time or day, or earlier."),
    click.option("--type", default="", help="Of this type, such as jpg."),
    click.option("--orientation", default="", help="landscape, portrait or square."),
    click.option("--alias", default="", help="With this alias: domain/dkey."),
    click.option("--md5", default="", help="With this MD5."),
)


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which images are meant, beside words."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


@contextmanager
def desk() -> Iterator[Desk]:
    """The house with its words, for as long as a command takes."""
    from imgproxy import wiring

    opened = wiring.furnish(wiring.settings_of(os.environ), os.environ, _restoring)
    try:
        booted = opened.words.booted
        if booted.moved is not None:
            click.echo(f"warning: the local database was damaged and lies at {booted.moved} now; this one is from the store", err=True)
        opened.words.follower.poll()  # what other nodes have committed meanwhile
        yield opened
    finally:
        opened.close()


@contextmanager
def writing() -> Iterator[Desk]:
    """The same, for a command that commits: afterwards another node may write."""
    with desk() as opened:
        try:
            yield opened
        finally:
            opened.step_down()


def _restoring(what: str, number: int) -> None:
    if sys.stderr.isatty() or number % 100 == 0:
        click.echo(f"restoring: {what} {number}", err=True)


# ---- saying


@click.command("set")
@click.argument("hash")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@_SESSION
def set_words(hash: str, pairs: tuple[str, ...], session: str) -> None:
    """Say something of the image HASH in a session: title, description, tags (with commas), taken_at, domain, dkey, user.NAME."""
    changes = _changes(pairs)
    with desk() as opened:
        sessions = opened.words.sessions
        found = sessions.find(session)
        user = changes.pop("user", None)
        if user is not None:
            known = sessions.read(hash, found)
            changes["user"] = {**(dict(known.user) if known else {}), **user}
        sessions.edit(found, hash, changes)


def _changes(pairs: tuple[str, ...]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"expected KEY=VALUE, got {pair}")
        if key == "tags":
            changes[key] = [tag.strip() for tag in value.split(",") if tag.strip()]
        elif key.startswith("user."):
            changes.setdefault("user", {})[key.removeprefix("user.")] = _json_or_text(value)
        else:
            changes[key] = value
    return changes


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


@click.command("remove")
@click.argument("hashes", nargs=-1, required=True)
@_SESSION
def remove(hashes: tuple[str, ...], session: str) -> None:
    """Delete the images HASHES in a session: their records with its commit, their originals after it."""
    with desk() as opened:
        found = opened.words.sessions.find(session)
        for hash in hashes:
            opened.words.sessions.delete(found, hash)


# ---- sessions


@click.group("session")
def session_group() -> None:
    """Open, list, compare, commit and discard sessions."""


@session_group.command("open")
@click.argument("name", default="")
@_AUTHOR
def session_open(name: str, author: str) -> None:
    """Open a session, or the one of that NAME; prints its id."""
    with desk() as opened:
        click.echo(opened.words.sessions.open(name, author).id)


@session_group.command("list")
def session_list() -> None:
    """Print every open session: id, name, author, how many records it changes."""
    with desk() as opened:
        for one in opened.words.sessions.all():
            click.echo(f"{one.id}\t{one.name}\t{one.author}\t{opened.words.sessions.size(one)}")


@session_group.command("diff")
@click.argument("session", default="")
def session_diff(session: str) -> None:
    """Print what a SESSION changes, a record a line: new, changed or deleted, its hash, and what was said."""
    with desk() as opened:
        for one in opened.words.sessions.diff(opened.words.sessions.find(session)):
            word = "new" if one.before is None else "deleted" if one.after is None else "changed"
            click.echo(f"{word}\t{one.hash}\t{json.dumps(_told(one.before, one.after), ensure_ascii=False)}" + ("\tstale" * one.stale))


def _told(before: Record | None, after: Record | None) -> dict[str, Any]:
    """The fields that are new or other than before."""
    from imgproxy.meta.record import shown

    was, now = (shown(record) if record is not None else {} for record in (before, after))
    return {key: value for key, value in now.items() if key != "version" and value != was.get(key)}


@session_group.command("commit")
@click.argument("session", default="")
@click.option("-m", "--message", default="", help="What this is about.")
@_AUTHOR
def session_commit(session: str, message: str, author: str) -> None:
    """Make all of a SESSION live, at one moment and for good; prints the commit's number."""
    _commit(session, message, author)


@session_group.command("discard")
@click.argument("session", default="")
def session_discard(session: str) -> None:
    """Forget what a SESSION changes."""
    with desk() as opened:
        opened.words.sessions.discard(opened.words.sessions.find(session))


# ---- commits


@click.command()
@_SESSION
@click.option("-m", "--message", default="", help="What this is about.")
@_AUTHOR
def commit(session: str, message: str, author: str) -> None:
    """Make all of a session live, at one moment and for good; prints the commit's number."""
    _commit(session, message, author)


def _commit(session: str, message: str, author: str) -> None:
    with writing() as opened:
        words = opened.words
        made = words.commits.commit(words.sessions.find(session).id, author, message)
        if made is None:
            click.echo("nothing to commit", err=True)
            return
        click.echo(made.n)
        words.farewell.say()
        if words.snapshots.due():
            words.snapshots.take()


@click.command()
@click.option("--most", default=100, show_default=True, help="How many.")
@click.option("--of", "hash", default="", help="Only the commits that made this image's record what it is.")
def log(most: int, hash: str) -> None:
    """Print the newest commits, one a line: number, time, author, records changed, message."""
    with desk() as opened:
        commits = opened.words.commits
        for one in (entry for entry, _ in commits.history(hash, most)) if hash else commits.log(most=most):
            click.echo(_line(one))


def _line(one: Commit) -> str:
    message = one.message.replace("\n", " ").replace("\t", " ")
    return f"{one.n}\t{one.time}\t{one.author}\t{one.changes}\t{message}"


@click.command()
@click.argument("number", type=int)
@_AUTHOR
def revert(number: int, author: str) -> None:
    """Go back on the commit of that NUMBER by a new one; prints its number."""
    with writing() as opened:
        session = opened.words.commits.revert(number, opened.words.sessions, author)
        made = opened.words.commits.commit(session.id, author, f"Revert commit {number}")
        click.echo(made.n if made is not None else "nothing to commit")


# ---- asking


@click.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print whole records, a JSON object a line.")
@click.option("--most", default=1000, show_default=True, help="How many.")
@asking
@click.option("--like", default="", help="That look like the image of this hash.")
@_SESSION
def search(words: tuple[str, ...], as_json: bool, most: int, like: str, session: str, **wanted: Any) -> None:
    """Print the images that WORDS are said of (`sun*` begins a word), newest first: a hash a line."""
    from imgproxy.meta.record import shown

    with desk() as opened:
        records = _like(opened, like, most) if like else _found(opened, asked(words, wanted), session, most)
        for record in records:
            click.echo(json.dumps(shown(record), ensure_ascii=False) if as_json else record.hash)


def asked(words: tuple[str, ...], wanted: Mapping[str, Any]) -> Query:
    """The query that words and the options of `asking` spell."""
    from imgproxy.meta import query

    domain, _, dkey = wanted["alias"].partition("/")
    said = {**wanted, "words": " ".join(words), "tags": list(wanted["tags"]), "domain": domain, "dkey": dkey}
    return query.read({name: value for name, value in said.items() if value and name != "alias"})


def _found(opened: Desk, wanted: Query, session: str, most: int) -> Iterator[Record]:
    cursor = ""
    inside = opened.words.sessions.find(session) if session else None
    while most > 0:
        page = opened.words.search.page(wanted, most=min(most, 200), cursor=cursor, session=inside)
        yield from page.records
        cursor, most = page.cursor, most - len(page.records)
        if not cursor:
            return


def _like(opened: Desk, hash: str, most: int) -> Iterator[Record]:
    from imgproxy.meta.near import near

    record = opened.words.sessions.read(hash)
    if record is None:
        raise Missing("no record of that hash")
    if not record.phash:
        raise BadRecord("phash", "is not known of this image")
    for found in near(opened.words.database, record.phash, most=most):
        if found.record.hash != hash:
            yield found.record


# ---- keeping


@click.command()
@click.option("--every", default=5.0, show_default=True, help="Ask the store for new commits again after so many seconds.")
def follow(every: float) -> None:
    """Keep this node's copy of the words level with what other nodes commit, until stopped; prints the newest commit as it comes."""
    with desk() as opened:
        seen = 0
        while True:
            seen = _followed(opened, seen)
            time.sleep(every)


def _followed(opened: Desk, seen: int) -> int:
    """Apply what is new; a store that is away for a while is told of, and asked again."""
    try:
        while not opened.words.follower.poll().level:
            pass
    except (Busy, StoreTrouble) as trouble:
        click.echo(f"warning: {trouble}", err=True)
    newest = opened.words.commits.log(most=1)
    if newest and newest[0].n != seen:
        click.echo(newest[0].n)
        sys.stdout.flush()
        return newest[0].n
    return seen


@click.command()
def snapshot() -> None:
    """Write the whole database into the store, so that a restore is quicker; prints the commit it stands at."""
    with desk() as opened:
        click.echo(opened.words.snapshots.take())


@click.command()
@click.option("--check", "prove", is_flag=True, help="Restore beside it, and prove that the result equals the live database.")
def restore(prove: bool) -> None:
    """Have the database from the store if there is none here, or a damaged one; says what was done."""
    with desk() as opened:
        booted = opened.words.booted
        if not prove:
            click.echo(f"restored to commit {booted.restored.n}" if booted.restored else "the database is here, and sound")
            return
        _prove(opened)


def _prove(opened: Desk) -> None:
    from imgproxy.meta.restoring import check

    database = opened.words.database
    proof = check(database, opened.meta, database.path.with_name("proof.db"), progress=_restoring)
    for n in proof.restored.broken:
        click.echo(f"broken\tsnapshot {n}")
    for difference in proof.differences:
        click.echo(f"differs\t{difference}")
    if proof.differences:
        sys.exit(1)
    click.echo(f"equal\t{proof.records} records at commit {proof.restored.n}")


@click.command()
@click.option("--repair", is_flag=True, help="Delete records whose original is gone, and give a record to originals that have none.")
@click.option("--delete-strays", is_flag=True, help="With --repair: delete originals that have no record, instead.")
@click.option("--grace", default=86_400.0, show_default=True, help="Spare what is younger than so many seconds.")
def sync(repair: bool, delete_strays: bool, grace: float) -> None:
    """Compare the records with the originals, and print each difference: lost, stray, odd or orphan, and its key."""
    from imgproxy import wiring
    from imgproxy.meta.sync import Repairs, Sync, orphans

    with writing() as opened:
        words, base = opened.words, opened.house.base
        stray = "delete" if delete_strays else "adopt"
        repairs = Repairs(True, stray, opened.uploads.described) if repair else Repairs()  # type: ignore[arg-type]
        tally = Sync(words.chain, words.commits, base, grace=grace).run(repairs, lambda one: click.echo(f"{one.kind}\t{one.key}"))
        derived = wiring.derived_of(opened.house)
        for key in orphans(base, derived) if derived is not None else ():
            click.echo(f"orphan\t{key}")
            if repair and derived is not None:
                derived.delete(key)
        words.farewell.say()
        told = ", ".join(f"{number} {word}" for word, number in sorted(tally.numbers.items()))
        click.echo(told or "nothing there", err=True)
    if not repair and any(tally[kind] for kind in ("lost", "stray", "odd")):
        sys.exit(1)


@click.command()
@click.option("--pace", default=20.0, show_default=True, help="At most so many megabytes a second; 0 does not hold back.")
@click.option("--most", type=int, help="Look at so many originals, and go on another time.")
def verify(pace: float, most: int | None) -> None:
    """Hash the originals again, going on where the last run stopped; prints and puts away those that do not match their name."""
    from imgproxy.meta.verify import Verify

    with writing() as opened:
        words = opened.words
        done = Verify(words.chain, opened.house.base, words.commits.catch_up, pace=pace * 1e6).run(most=most)
        for hash in done.quarantined:
            click.echo(f"quarantined\t{hash}")
        click.echo(f"{done.originals} originals, {done.bytes} bytes" + ("" if done.whole else "; to be continued"), err=True)
    if done.quarantined:
        sys.exit(1)


@click.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--session", default="import", show_default=True, help="The name of the session; a run that was stopped goes on in it.")
@click.option("-m", "--message", default="", help="What this is about.")
@_AUTHOR
def import_folder(folder: Path, session: str, message: str, author: str) -> None:
    """Keep every picture below FOLDER, in one session and with one commit; prints hash and file, and tells duplicates."""
    with writing() as opened:
        found = opened.words.sessions.open(session, author)
        counts = {"new": 0, "duplicate": 0, "refused": 0}
        for path in sorted(one for one in folder.rglob("*") if one.suffix.lower() in _SUFFIXES and one.is_file()):
            word, told = _imported(opened, path, found)
            counts[word] += 1
            click.echo(f"{word}\t{told}\t{path}")
        made = opened.words.commits.commit(found.id, author, message or f"Import {folder.name}")
        told = ", ".join(f"{number} {word}" for word, number in counts.items())
        click.echo(f"{told}; " + (f"commit {made.n}" if made is not None else "nothing to commit"), err=True)
    if counts["refused"]:
        sys.exit(1)


def _imported(opened: Desk, path: Path, session: Any) -> tuple[str, str]:
    try:
        with path.open("rb") as file:
            done = opened.uploads.keep(file, session, {})
    except Error as error:
        return "refused", str(error).splitlines()[0]
    return ("new" if done.added.new else "duplicate"), done.added.name.hash


COMMANDS = (set_words, remove, session_group, commit, log, revert, search, follow, snapshot, restore, sync, verify, import_folder)
