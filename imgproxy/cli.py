"""The command line: serve pictures, put and get them, and work with names.

What only works with names loads nothing but the grammar; the house is imported by the commands that live in it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from shutil import copymode
from typing import IO, TYPE_CHECKING, Any

import click

from imgproxy import keeper
from imgproxy.commands import COMMANDS
from imgproxy.commands.progress import watched
from imgproxy.commands.where import anywhere, repository, server
from imgproxy.errors import BadName, Error, StoreDown, StoreRefused
from imgproxy.grammar import OPTIONS, SYNTAX, Derived, Name, parse
from imgproxy.security import Keyring

if TYPE_CHECKING:
    from imgproxy.config import Settings
    from imgproxy.images import Images

_CHUNK = 1 << 20
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SAMPLE_SUFFIXES = ("-800x600.jpg", "-256x256-fill_smart.webp", "-320x-turn_90.png")


class _Command(click.Group):
    """Tells our own errors in one line, and leaves with 1; a mistake in the call leaves with 2, as click has it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            _unseal()
            return super().invoke(ctx)
        except Error as error:
            raise click.ClickException(str(error)) from error


def _unseal() -> None:
    """Have the secrets that are in files in the environment, for this process and those that it starts."""
    if any(name.endswith("_FILE") for name in os.environ):
        from imgproxy import config

        os.environ.update(config.unsealed(os.environ))


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="imgproxy")
def main() -> None:
    """An image repository whose read side is nothing but names."""


for _command in COMMANDS:
    main.add_command(_command)


@main.command()
@click.option("--try", "samples", multiple=True, type=_FILE, help="Put this picture first; may be repeated.")
@click.option("--edge", is_flag=True, help="With nginx in front, as its child; the same as the setting edge = nginx.")
@click.option("--read-only", is_flag=True, help="Without doors for writing and without work; follows what other nodes commit.")
def serve(samples: tuple[Path, ...], edge: bool, read_only: bool) -> None:
    """Serve pictures by name with gunicorn, as the settings say; with nginx in front, if they want it."""
    environ = {**os.environ, "IMG_EDGE": "nginx"} if edge else dict(os.environ)
    if read_only:
        environ |= {"IMG_ADMIN": "off", "IMG_JOB_WORKERS": "0"}
    settings = _settings(environ)
    _warn(settings)
    _prepare()
    for path in samples:
        with _images() as images, path.open("rb") as file:
            added = images.add(file)
        for suffix in _SAMPLE_SUFFIXES:
            click.echo(f"try  {_address(settings)}/{added.name.hash}{suffix}")
    _tell_of_tokens(settings)
    click.echo(f"serving on {', '.join(settings.bind)} out of {settings.data}; stop with Ctrl-C")
    sys.stdout.flush()
    words, environ = _gunicorn(), _with_jemalloc(environ)
    beside = "follow" if read_only else "work" if settings.job_workers else ""
    if beside:
        command = [sys.executable, "-P", "-c", "from imgproxy.cli import main; main()", beside]
        environ = keeper.start(command, settings.doors[0], environ)
    if settings.edge != "nginx":
        os.execve(sys.executable, words, environ)  # noqa: S606
    from imgproxy import observe
    from imgproxy.edge import together

    observe.configure(settings.log_level, settings.log_format)
    try:
        code = together.serve(settings, words, environ)
    finally:
        keeper.end(environ, settings.grace + 5)
    sys.exit(code)


@main.command()
def admin() -> None:
    """Serve the doors for writing alone: at the address of the setting admin, or else where pictures would be served."""
    settings = _settings()
    address = settings.admin if settings.admin not in ("beside", "off") else ""
    environ = {**os.environ, "IMG_ADMIN": "beside", "IMG_EDGE": "off", **({"IMG_BIND": address} if address else {})}
    settings = _settings(environ)
    _warn(settings)
    _prepare()
    _tell_of_tokens(settings)
    click.echo(f"the doors for writing are at {', '.join(settings.bind)}, out of {settings.data}; stop with Ctrl-C")
    sys.stdout.flush()
    os.execve(sys.executable, [*_gunicorn(), "imgproxy.wsgi:admin()"], _with_jemalloc(environ))  # noqa: S606


@main.command()
def nginx() -> None:
    """Print the configuration of an nginx that stands in front, as the settings want it."""
    from imgproxy.edge import configuration

    click.echo(configuration(_settings()), nl=False)


@main.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--session", default="", help="The id or name of the session for their records; the default session if none is named.")
@anywhere
def put(files: tuple[Path, ...], session: str) -> None:
    """Keep FILES as originals, with a record each in a session; print the base name of each."""
    failed = False
    with repository() as there, watched("putting") as share:
        for number, path in enumerate(files):
            share(number / len(files))
            try:
                click.echo(there.upload(path, session=session).name)
            except Error as error:
                failed = True
                click.echo(f"{path}: {error}", err=True)
    if failed:
        sys.exit(1)


@main.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead of standard output.")
@anywhere
def get(name: str, output: Path | None) -> None:
    """Write the picture of that NAME, made now if need be, to standard output."""
    wanted = parse(name)
    if output is None and sys.stdout.isatty():
        raise click.UsageError("a picture on a terminal is no use: say -o FILE, or redirect")
    with _picture(wanted) as pieces, _written(output or Path("-")) as out:
        for piece in pieces:
            out.write(piece)


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """What is written there while the block runs: a file is whole or as it was before; a pipe or a device takes what comes."""
    ours = str(path) == "-" or (path.is_symlink() and path.is_relative_to("/dev"))  # /dev/stdout, whatever that is
    target = path.resolve()
    if ours or (path.exists() and not path.is_file()) or not os.access(target.parent, os.W_OK):
        with click.open_file(str(path), "wb") as out:
            yield out
        return
    draft = target.with_name(f".{token_hex(8)}.part")
    try:
        with draft.open("xb") as out:
            yield out
        if target.exists():
            copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """One command line option for each row of the grammar's table."""
    for option in reversed(OPTIONS):
        flag = getattr(Derived, option.key) is False
        told = f"The option {option.key}." if flag else f"The option {option.key}: {option.wanted}."
        if option.key == "fill":
            told = told.replace('no "_"', "centre")
        command = click.option(f"--{option.key}", is_flag=flag, default=None, help=told)(command)
    return command


@main.command()
@click.argument("hash")
@click.option("--size", default="full", help="1024x512, 320x, x480 or full.")
@click.option("--format", default="jpg", help="avif, gif, jpg, jxl, png or webp.")
@_with_options
def name(hash: str, size: str, format: str, **options: str | bool | None) -> None:
    """Print the one name of a rendition of HASH."""
    words = [f"-{key}" if _bare(key, value) else f"-{key}_{value}" for key, value in sorted(options.items()) if value is not None]
    click.echo(str(parse(f"{hash}-{size}{''.join(words)}.{format}")))


def _bare(key: str, value: str | bool | None) -> bool:
    """Whether an option is spelled without an argument: a flag, and the fill that keeps the centre."""
    return value is True or (key == "fill" and value == "centre")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--syntax", is_flag=True, help="Print the published regular expression instead.")
def check(names: tuple[str, ...], syntax: bool) -> None:
    """Say of each of NAMES, or each line of standard input, whether it is a name, and if not, why; leave with 1 if one is not."""
    if syntax:
        click.echo(SYNTAX)
        return
    wrong = False
    for text in names or _lines():
        try:
            parse(text)
            verdict = f"name\t{text}"
        except BadName as error:
            wrong = True
            verdict = f"not\t{text}\t{error.why} (at {error.at})"
        click.echo(verdict.encode("utf-8", "surrogateescape"))
    if wrong:
        sys.exit(1)


@main.command()
@click.argument("name")
@click.option("--expires", type=int, help="Seconds from now after which the signature opens nothing.")
def sign(name: str, expires: int | None) -> None:
    """Print the path of NAME, signed with the newest key."""
    settings = _settings()
    if not settings.keys:
        raise click.ClickException("no keys are set: IMG_KEYS (or keys in the settings file) wants one in hex, of 16 bytes or more")
    until = None if expires is None else int(time.time()) + expires
    text = str(parse(name))
    try:
        click.echo(Keyring(settings.keys).sign(text, until))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from error


@main.command("config")
def show_config() -> None:
    """Print every setting, its value and where it comes from."""
    from imgproxy import config

    settings = _settings()
    for name, value, origin in config.describe(settings):
        click.echo(f"{name} = {value}\t# {origin}")
    _warn(settings)


def _prepare() -> None:
    """See that the store can be used; what is only down just now is told, and may come back."""
    from imgproxy import wiring

    house = wiring.build(_settings(), os.environ)
    try:
        for warning in house.prepare():
            click.echo(f"warning: {warning}", err=True)
    except StoreRefused:
        raise
    except StoreDown as trouble:
        click.echo(f"warning: {trouble}", err=True)
    finally:
        house.close()


def _tell_of_tokens(settings: Settings) -> None:
    """See that somebody may write, and say where the first token is."""
    from imgproxy import wiring

    if settings.admin == "off":
        return
    tokens = wiring.tokens_of(settings, os.environ)
    tokens.begin()
    if tokens.first.exists():
        where = "under /admin" if settings.admin == "beside" else f"at {settings.admin}"
        click.echo(f"writing is {where}, with the token in {tokens.first}")


def _settings(environ: Mapping[str, str] = os.environ) -> Settings:
    from imgproxy import wiring

    return wiring.settings_of(environ)


def _address(settings: Settings) -> str:
    """Where a browser on this machine finds the server; nothing but the path if that is a socket in the file system."""
    return "" if settings.bind[0].startswith("unix:") else f"http://{settings.bind[0]}"


def _warn(settings: Settings) -> None:
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)


def _gunicorn() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "-c", str(_conf("gunicorn.conf.py"))]


def _with_jemalloc(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with jemalloc preloaded where it is installed: many threads for a long time fragment the usual heap."""
    homes = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/lib") / f"{os.uname().machine}-linux-gnu")
    found = next((path for home in homes if (path := home / "libjemalloc.so.2").exists()), None)
    return {**environ, "LD_PRELOAD": str(found)} if found is not None and "LD_PRELOAD" not in environ else dict(environ)


def _conf(name: str) -> Path:
    """A file of `conf/`: it is packed into an installed package, and lies beside the package in a checkout."""
    packed, checkout = Path(__file__).parent / "conf" / name, Path(__file__).parents[1] / "conf" / name
    return packed if packed.exists() else checkout


@contextmanager
def _images() -> Iterator[Images]:
    from imgproxy import wiring

    house = wiring.build(_settings(), os.environ)
    try:
        yield house.images
    finally:
        house.close()


@contextmanager
def _picture(name: Name) -> Iterator[Iterable[bytes]]:
    """A picture, piece by piece: from a server as anybody may have it, or from the house."""
    if server():
        from imgproxy.client import Client

        with Client(server()) as client, client.picture(str(name)) as pieces:
            yield pieces
        return
    with _images() as images, images.open(name).file as file:
        yield iter(lambda: file.read(_CHUNK), b"")


def _lines() -> Iterator[str]:
    """The lines of standard input as they are: whatever their bytes, and with every mark but the newline that ends them."""
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").decode("utf-8", "surrogateescape")
