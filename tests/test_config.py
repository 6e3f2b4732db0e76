"""Settings: their defaults, their spellings, and every mistake at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from imgproxy import config
from imgproxy.config import KINDS, Settings, load, variable
from imgproxy.errors import BadSettings
from imgproxy.limits import Limits
from imgproxy.picture import Mark
from imgproxy.spelling import MarkFile, Shelf

EXAMPLE = Path(__file__).parent.parent / "conf" / "imgproxy.toml"
KEY = "00112233445566778899aabbccddeeff"
TOKEN = "img_LxgCQ0b1mzR8yVqTn3dWvPkU5sJfE7hA"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without a settings file."""
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Settings:
    Path("settings.toml").write_text(text)
    return load(Path("settings.toml"), {})


def mistakes(text: str = "", environ: dict[str, str] | None = None) -> list[str]:
    Path("settings.toml").write_text(text)
    with pytest.raises(BadSettings) as caught:
        load(Path("settings.toml"), environ or {})
    return caught.value.mistakes


# ---- the example file


def entries() -> dict[str, str]:
    """Every setting of the example file, with the comment that stands above it."""
    found, table, sentence = {}, "", ""
    for line in EXAMPLE.read_text().splitlines():
        if line == "#[limits]":
            table = "limits."
        elif setting := re.match(r"#(\w+) = ", line):
            found[table + setting[1]], sentence = sentence, ""
        else:
            sentence = line.removeprefix("# ")
    return found


def test_the_example_file_has_every_setting_once_with_a_sentence() -> None:
    assert sorted(entries()) == sorted(KINDS)
    for name, sentence in entries().items():
        assert re.fullmatch(r"[A-Z].{10,}[.;].*|[A-Z].{10,}[.]", sentence), name
    assert len(re.findall(r"^#\w+ = ", EXAMPLE.read_text(), re.MULTILINE)) == len(KINDS)


def test_the_example_file_says_the_defaults_and_sets_none() -> None:
    text = EXAMPLE.read_text()
    assert tomllib.loads(text) == {}
    uncommented = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    said = written(uncommented)
    assert set(said.origins) == set(KINDS)
    assert msgspec.structs.replace(said, origins={}) == msgspec.structs.replace(load(None, {}), origins={})


# ---- defaults


def test_the_defaults_are_those_of_a_single_machine() -> None:
    settings = load(None, {})
    here = Path.cwd()
    assert settings.bind == ("127.0.0.1:8080",)
    assert settings.data == here / "var"
    assert settings.store == Shelf("fs", path=f"{here}/var/store")
    assert settings.cache == (Shelf("disk", path=f"{here}/var/cache", size=10 * 2**30, options={"size": "10G"}),)
    assert (settings.policy, settings.originals, settings.keys, settings.cors) == ("any", "public", (), "*")
    assert settings.limits == Limits()
    assert settings.warnings == ()


def test_settings_that_are_made_by_hand_find_their_places_too() -> None:
    settings = Settings(data=Path("here"))
    assert settings.store.path == f"{Path.cwd()}/here/store"
    assert settings.cache[0].path == f"{Path.cwd()}/here/cache"


def test_settings_cannot_be_changed() -> None:
    settings = load(None, {"IMG_PRESETS": "thumb=-20x20.jpg"})
    with pytest.raises(AttributeError):
        settings.workers = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.presets["thumb"] = "-30x30.jpg"  # type: ignore[index]


# ---- file and environment


def test_the_environment_wins_over_the_file() -> None:
    Path("settings.toml").write_text('workers = 3\nqueue = 5\n[limits]\npixels = 10\nfile_bytes = "2K"')
    settings = load(Path("settings.toml"), {"IMG_WORKERS": "7", "IMG_LIMITS_PIXELS": "20"})
    assert (settings.workers, settings.queue, settings.limits.pixels, settings.limits.file_bytes) == (7, 5, 20, 2048)
    assert dict(settings.origins) == {
        "workers": "IMG_WORKERS",
        "queue": "file",
        "limits.pixels": "IMG_LIMITS_PIXELS",
        "limits.file_bytes": "file",
    }


def test_the_file_is_found_where_it_is_named_or_at_its_usual_place() -> None:
    Path("named.toml").write_text("queue = 1")
    Path("conf").mkdir()
    Path("conf/imgproxy.toml").write_text("queue = 2")
    Path("given.toml").write_text("queue = 3")
    assert load(None, {}).queue == 2
    assert load(None, {"IMG_CONFIG": ""}).queue == 2
    assert load(None, {"IMG_CONFIG": "named.toml"}).queue == 1
    assert load(Path("given.toml"), {"IMG_CONFIG": "named.toml"}).queue == 3


def test_a_named_file_must_be_there_and_be_toml() -> None:
    with pytest.raises(BadSettings, match=r"config: nowhere\.toml: No such file"):
        load(None, {"IMG_CONFIG": "nowhere.toml"})
    assert "line 2" in mistakes("queue = 1\nworkers = = 3")[0]
    Path("settings.toml").write_bytes(b"\xff")
    with pytest.raises(BadSettings, match=r"config: settings\.toml"):
        load(Path("settings.toml"), {})


def test_a_broken_file_does_not_hide_the_mistakes_of_the_environment() -> None:
    assert [mistake.partition(":")[0] for mistake in mistakes("nonsense", {"IMG_WORKERS": "many"})] == ["config", "workers"]


def test_an_empty_variable_is_not_set_but_empties_a_list() -> None:
    settings = load(None, {"IMG_WORKERS": "", "IMG_POLICY": "", "IMG_CACHE": "", "IMG_CORS": "", "IMG_STORE": ""})
    assert (settings.workers, settings.policy, settings.cache, settings.cors) == (0, "any", (), "")
    assert list(settings.origins) == ["cache", "cors"]
    assert load(None, {"IMG_CACHE": "none"}).cache == ()
    assert written("cache = []").cache == ()


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_can_be_set_by_its_variable(name: str) -> None:
    """What `describe` shows is what the variable takes; keys excepted, which nobody shows."""
    shown = {row[0]: row[1] for row in config.describe(load(None, {}))}
    text = KEY if name == "keys" else shown[name]
    settings = load(None, {variable(name): text})
    assert {row[0]: row[1] for row in config.describe(settings) if row[0] != "keys"} == {n: s for n, s in shown.items() if n != "keys"}
    if text:
        assert settings.origins == {name: variable(name)}


# ---- spellings


def test_lists_and_tables_are_comma_separated_in_the_environment() -> None:
    Path("m.png").touch()
    settings = load(
        None,
        {
            "IMG_BIND": "127.0.0.1:80, [::1]:81,unix:/run/img.sock",
            "IMG_KEYS": f"{KEY},{KEY}ff",
            "IMG_PRESETS": "thumb=-256x256-fill.webp, big=-2000x.jpg",
            "IMG_LISTED": "-1024x512.jpg",
            "IMG_MARKS": "logo1=m.png?place=ne&opacity=60,plain=m.png",
            "IMG_CACHE": "memory://,disk:///c?size=5G",
        },
    )
    assert settings.bind == ("127.0.0.1:80", "[::1]:81", "unix:/run/img.sock")
    assert settings.keys == (bytes.fromhex(KEY), bytes.fromhex(KEY + "ff"))
    assert settings.presets == {"thumb": "-256x256-fill.webp", "big": "-2000x.jpg"}
    assert settings.listed == ("-1024x512.jpg",)
    assert settings.marks == {
        "logo1": MarkFile(Mark("ne", opacity=60), Path.cwd() / "m.png"),
        "plain": MarkFile(Mark(), Path.cwd() / "m.png"),
    }
    assert [(tier.scheme, tier.path, tier.size) for tier in settings.cache] == [("memory", "", 256 * 2**20), ("disk", "/c", 5 * 2**30)]


def test_lists_and_tables_are_toml_in_the_file() -> None:
    settings = written('bind = ["h:1", "h:2"]\nlisted = "-20x.jpg,-30x.jpg"\n[presets]\nthumb = "-20x20.jpg"')
    assert (settings.bind, settings.listed) == (("h:1", "h:2"), ("-20x.jpg", "-30x.jpg"))
    assert settings.presets == {"thumb": "-20x20.jpg"}


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("64K", 65536), ("400M", 400 * 2**20), ("10G", 10 * 2**30), ("1T", 2**40)])
def test_sizes(text: str, count: int) -> None:
    assert load(None, {"IMG_LIMITS_FILE_BYTES": text}).limits.file_bytes == count
    assert load(None, {"IMG_LIMITS_DECODED_BYTES": str(count)}).limits.decoded_bytes == count


@pytest.mark.parametrize("text", ["0", "-1", "1.5G", "10g", "10GB", "G", " 1", "٣", "1_000", "9" * 16])
def test_what_is_no_size(text: str) -> None:
    assert mistakes("", {"IMG_LIMITS_FILE_BYTES": text}) == [
        "limits.file_bytes: expected a size such as 400M or 10G (IMG_LIMITS_FILE_BYTES)"
    ]


@pytest.mark.parametrize(("text", "count"), [("20", 20.0), ("0.5", 0.5), ("20s", 20.0), ("5m", 300.0), ("1.5h", 5400.0)])
def test_durations(text: str, count: float) -> None:
    assert load(None, {"IMG_PATIENCE": text}).patience == count


def test_numbers_of_the_file_are_numbers() -> None:
    settings = written('patience = 7\ngrace = "1m"\nmetrics = false\n[limits]\nseconds = 0.5\nsvg = true\ndecoded_bytes = 5')
    assert (settings.patience, settings.grace, settings.metrics) == (7.0, 60.0, False)
    assert (settings.limits.seconds, settings.limits.svg, settings.limits.decoded_bytes) == (0.5, True, 5)
    assert mistakes('workers = "3"') == ["workers: expected a whole number from 0 to 1024, got '3'"]


@pytest.mark.parametrize(("text", "on"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_switches(text: str, on: bool) -> None:
    assert load(None, {"IMG_METRICS": text}).metrics is on


# ---- mistakes


def test_every_mistake_is_told_at_once_and_by_name() -> None:
    text = """
bind = "nowhere"
policy = "sometimes"
keys = ["abc", "00ff", 7]
listed = ["1024x512.jpg"]
worker = 3
cors = "example.org"
store = "ftp://x"
queue = -1
[presets]
thumb = "-256x-fill.webp"
Thumb = "-20x20.jpg"
[limits]
pixel = 5
svg = 1
seconds = "long"
"""
    environ = {
        "IMG_THREADS": "0",
        "IMG_CACHE": "disc://,memory://?size=x,disk://?speed=9",
        "IMG_MARKS": "a=nowhere.png,b-c=x,d=x?place=up,e=x?size=0,f=x?colour=1",
    }
    assert mistakes(text, environ) == [
        "worker: no such setting; did you mean workers?",
        "limits.pixel: no such setting; did you mean limits.pixels?",
        "bind: expected host:port or unix:PATH",
        "policy: expected one of any, listed, signed, got 'sometimes'",
        "keys: number 1: expected hex digits in pairs",
        "keys: number 2: expected at least 32 hex digits (16 bytes), found 4",
        "keys: number 3: expected hex digits in pairs",
        'listed: expected "-" and a size',
        "cors: expected *, one origin such as https://example.org, or nothing",
        "store: expected a URL that begins with fs:// or swift:// or s3:// or gs:// or az://",
        "queue: expected a whole number from 1 to 100000, got -1",
        'presets.thumb: fill needs a size of width and height, at "fill.webp" of "-256x-fill.webp"',
        "presets.Thumb: expected a name of a-z 0-9 -",
        "limits.svg: expected true or false, got 1",
        "limits.seconds: expected a duration such as 20 or 20s or 5m",
        "cache: number 1: expected a URL that begins with disk:// or memory:// or redis:// or rediss:// (IMG_CACHE)",
        "cache: number 2: expected a size such as 400M or 10G (IMG_CACHE)",
        "cache: number 3: does not know speed, only size (IMG_CACHE)",
        "marks.a: there is no file nowhere.png (IMG_MARKS)",
        "marks.b-c: expected an id of 1 to 16 of a-z 0-9 (IMG_MARKS)",
        "marks.d: expected a place: centre, n, ne, e, se, s, sw, w, nw (IMG_MARKS)",
        "marks.e: expected a size from 1 to 1000 (IMG_MARKS)",
        "marks.f: does not know colour, only place, size, margin, opacity (IMG_MARKS)",
        "threads: expected a whole number from 1 to 4096, got '0' (IMG_THREADS)",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("limits = 3", "limits: expected a table"),
        ("presets = 3", "presets: expected a table of names and values"),
        ("presets = ['-20x.jpg']", "presets: expected a table of names and values"),
        ("cache = 3", "cache: expected a list"),
        ("data = ''", "data: expected the path of a directory"),
        ("data = 3", "data: expected text"),
        ("metrics = 'yes'", "metrics: expected true or false, got 'yes'"),
        ("patience = true", "patience: expected a duration such as 20 or 20s or 5m"),
        ("renderer_memory = true", "renderer_memory: expected a size such as 400M or 10G"),
        ("bind = 'h:65536'", "bind: expected host:port or unix:PATH"),
        ("store = 'fs:///x#y'", "store: expected no # in a URL"),
        ("store = 'fs:///x?size=1G'", "store: does not know size"),
        ("cache = 'memory://?size=1G&size=2G'", "cache: says a thing twice"),
        ("originals = 'signed'", "originals: signed needs keys"),
        ("policy = 'signed'", "policy: signed needs keys"),
        ("renderer_memory = '100M'", "renderer_resident: is more than renderer_memory"),
        (
            "listed = ['-20x20.jpg', '-0x20.jpg']",
            'listed: number 2: expected a width from 1 to 16383, "x" or "full", at "0x20.jpg" of "-0x20.jpg"',
        ),
        ("listed = ['-20x20']", 'listed: expected "." and a format, at the end of "-20x20"'),
    ],
)
def test_a_mistake_has_a_name_and_says_what_was_expected(text: str, mistake: str) -> None:
    assert mistakes(text) == [mistake]


def test_a_broken_key_is_never_repeated() -> None:
    secret = "5ec2e7" * 6 + "x"
    assert secret not in "".join(mistakes(f"keys = ['{secret}']"))
    assert secret not in "".join(mistakes(f"policy = 'signed'\nkeys = '{secret}'"))


# ---- warnings


def test_strange_variables_are_a_warning_and_known_ones_are_not() -> None:
    environ = {"IMG_WORKER": "3", "IMG_XYZZY": "", "IMG_ADMIN_TOKEN": TOKEN, "IMG_CONFIG": "", "IMGPROXY_BIND": ":1"}
    assert load(None, environ).warnings == ("IMG_WORKER: no such setting; did you mean IMG_WORKERS?", "IMG_XYZZY: no such setting")


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("short", "expected at least 32 characters, found 5"),
        ("changeme" * 4, "is easily guessed: let `imgproxy token add` make one"),
        ("a" * 40, "is easily guessed: let `imgproxy token add` make one"),
        (f"{TOKEN} {TOKEN}", "expected at most 200 characters without spaces, of ASCII alone"),
    ],
)
def test_a_token_that_could_be_guessed_is_a_mistake_and_never_repeated(token: str, why: str) -> None:
    assert mistakes(environ={"IMG_ADMIN_TOKEN": token}) == [f"IMG_ADMIN_TOKEN: {why}"]


def test_a_door_of_its_own_needs_a_port_of_its_own() -> None:
    assert load(None, {"IMG_ADMIN": "127.0.0.1:8081"}).admin == "127.0.0.1:8081"
    assert mistakes(environ={"IMG_ADMIN": "0.0.0.0:8080"}) == ["admin: has the port of bind, and needs one of its own; or say beside"]


def test_a_pause_may_be_none() -> None:
    assert [load(None, {"IMG_AUTOCOMMIT": text}).autocommit for text in ("0", "5", "2m")] == [0.0, 5.0, 120.0]


def test_a_list_that_allows_nothing_is_a_warning() -> None:
    assert load(None, {"IMG_POLICY": "listed"}).warnings == ("policy: listed, but nothing is: no rendition may be had",)
    assert load(None, {"IMG_POLICY": "listed", "IMG_PRESETS": "t=-20x.jpg"}).warnings == ()


# ---- telling


def test_describe_tells_value_and_origin_and_no_secret() -> None:
    Path("settings.toml").write_text("queue = 5")
    environ = {"IMG_KEYS": f"{KEY},{KEY}", "IMG_PRESETS": "a=-20x.jpg,b=-30x.jpg", "IMG_LIMITS_FILE_BYTES": "64M"}
    settings = load(Path("settings.toml"), environ)
    rows = {name: (value, origin) for name, value, origin in config.describe(settings)}
    assert list(rows) == list(KINDS)
    assert rows["queue"] == ("5", "file")
    assert rows["keys"] == ("2 of them", "IMG_KEYS")
    assert rows["presets"] == ("a=-20x.jpg, b=-30x.jpg", "IMG_PRESETS")
    assert rows["limits.file_bytes"] == ("64M", "IMG_LIMITS_FILE_BYTES")
    assert rows["limits.decoded_bytes"] == ("400000000", "default")
    assert rows["metrics"] == ("true", "default")
    for shown in (str(rows), repr(settings)):
        assert KEY not in shown
        assert repr(bytes.fromhex(KEY)) not in shown


def test_a_shelf_never_tells_its_password() -> None:
    assert str(Shelf("redis", netloc="user:secret@host:6379", path="/0")) == "redis://user:***@host:6379/0"
    assert str(Shelf("redis", netloc=":secret@host")) == "redis://:***@host"
    assert str(Shelf("redis", netloc="user@host", options={"size": "1G"})) == "redis://user@host?size=1G"
