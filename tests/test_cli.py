"""The command line, as a newcomer types it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy.grammar import OPTIONS
from tests.plain import png, png_size, written
from tests.serving import COMMAND, environment
from tests.strange import Asked, stranger

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
NAMES = Path(__file__).parent / "names.tsv"


def run(tmp_path: Path, *words: str, said: bytes = b"", settings: Iterable[tuple[str, str]] = ()) -> subprocess.CompletedProcess[bytes]:
    env = environment(tmp_path / "var", **dict(settings))
    return subprocess.run([COMMAND, *words], input=said, env=env, capture_output=True, cwd=tmp_path, timeout=60, check=False)


def test_put_prints_the_base_name_and_get_gives_the_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.png", png(40, 20)), written(tmp_path / "b.png", png(40, 20, seed=1))
    done = run(tmp_path, "put", str(first), str(second))
    names = done.stdout.decode().split()
    assert names == [hashlib.sha256(path.read_bytes()).hexdigest() + ".png" for path in (first, second)]
    assert run(tmp_path, "get", names[0]).stdout == first.read_bytes()
    hash = names[0].removesuffix(".png")
    assert png_size(run(tmp_path, "get", f"{hash}-10x10.png").stdout) == (10, 5)
    assert run(tmp_path, "get", f"{hash}-10x10.png", "-o", "out.png").returncode == 0
    assert png_size((tmp_path / "out.png").read_bytes()) == (10, 5)


def broken_off(asked: Asked) -> None:
    asked.answer(200, b"x" * 50_000, length="100000")
    asked.hang_up()


def test_get_leaves_a_file_as_it_was_when_the_line_breaks_off(tmp_path: Path) -> None:
    there, linked = written(tmp_path / "there.png", b"before"), tmp_path / "linked.png"
    linked.symlink_to(there)
    with stranger({f"{HASH}.png": broken_off}) as server:
        for path in (there, linked, tmp_path / "new.png"):
            done = run(tmp_path, "get", f"{HASH}.png", "-o", str(path), settings={"IMG_SERVER": server.url("")}.items())
            assert done.returncode == 1
            assert b"broke off" in done.stderr
    assert sorted(tmp_path.iterdir()) == [linked, there]
    assert there.read_bytes() == b"before"


def test_get_writes_whatever_can_be_written(tmp_path: Path) -> None:
    data = png(40, 20)
    name = run(tmp_path, "put", str(written(tmp_path / "a.png", data))).stdout.decode().strip()
    new, private, linked = (tmp_path / word for word in ("new.png", "private.png", "linked.png"))
    written(private, b"before").chmod(0o600)
    linked.symlink_to(private)
    for path in (new, linked):
        assert run(tmp_path, "get", name, "-o", str(path)).returncode == 0
        assert path.read_bytes() == data
    assert linked.is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, private)] == [0o666 & ~umask, 0o600]
    for output in ("-", "/dev/stdout", "/dev/stderr"):
        done = run(tmp_path, "get", name, "-o", output)
        assert (done.returncode, done.stdout + done.stderr) == (0, data)
    assert run(tmp_path, "get", name, "-o", "/dev/null").returncode == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        assert run(tmp_path, "get", name, "-o", str(pipe)).returncode == 0
        assert read.result(10) == data
    assert pipe.is_fifo()
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([COMMAND, "get", name, "-o", "/dev/stdout"], env=environment(tmp_path / "var"), stdout=log, timeout=60, check=True)
        assert os.fstat(log.fileno()).st_size == len(data)


def test_put_tells_of_each_file_that_is_none_and_keeps_the_others(tmp_path: Path) -> None:
    good, bad = written(tmp_path / "a.png", png(4, 2)), written(tmp_path / "b.png", b"nothing")
    done = run(tmp_path, "put", str(bad), str(good))
    assert done.returncode == 1
    assert done.stdout.decode().split() == [hashlib.sha256(png(4, 2)).hexdigest() + ".png"]
    assert b"b.png" in done.stderr


@pytest.mark.parametrize(("name", "said"), [(f"{HASH}-10x10.png", b"no original"), ("nonsense", b"expected a hash")])
def test_get_says_in_words_what_is_wrong(tmp_path: Path, name: str, said: bytes) -> None:
    done = run(tmp_path, "get", name)
    assert (done.returncode, done.stdout) == (1, b"")
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--size", "1024x512"], "-1024x512.jpg"),
        ([], "-full.jpg"),
        (["--size", "320x", "--q", "60", "--format", "webp"], "-320x-q_60.webp"),
        (["--size", "64x64", "--fill", "centre", "--up"], "-64x64-fill-up.jpg"),
        (["--size", "64x64", "--fill", "n", "--bg", "00ff00", "--blur", "5"], "-64x64-bg_00ff00-blur_5-fill_n.jpg"),
        (["--turn", "90", "--flip", "--crop", "0x0x5x5", "--format", "png"], "-full-crop_0x0x5x5-flip-turn_90.png"),
    ],
)
def test_name_prints_the_one_name(tmp_path: Path, words: list[str], name: str) -> None:
    assert run(tmp_path, "name", HASH, *words).stdout.decode() == f"{HASH}{name}\n"


def test_name_knows_every_option_of_the_grammar(tmp_path: Path) -> None:
    told = run(tmp_path, "name", "--help").stdout.decode()
    for option in OPTIONS:
        assert f"--{option.key} " in told


def test_name_refuses_what_the_grammar_refuses(tmp_path: Path) -> None:
    done = run(tmp_path, "name", HASH, "--size", "100x100", "--q", "80")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"states the default" in done.stderr


def test_check_decides_every_line_of_the_contract(tmp_path: Path) -> None:
    rows = [line.split("\t")[:2] for line in NAMES.read_text().splitlines() if not line.startswith("#")]
    done = run(tmp_path, "check", said="".join(f"{text}\n" for _, text in rows).encode())
    answers = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [answer[:2] for answer in answers] == rows
    assert all(len(answer) == (2 if answer[0] == "name" else 3) for answer in answers)
    assert done.returncode == 1


def test_check_leaves_with_0_if_all_are_names(tmp_path: Path) -> None:
    assert run(tmp_path, "check", f"{HASH}.jpg", f"{HASH}-1x1.jpg").returncode == 0


def test_check_takes_lines_of_any_bytes(tmp_path: Path) -> None:
    lines = [b"\xff\xfe", b"", b"a\rb", f"{HASH}.jpg ".encode(), "é".encode()]
    done = run(tmp_path, "check", said=b"\n".join(lines) + b"\n")
    answers = done.stdout.removesuffix(b"\n").split(b"\n")
    assert [answer.split(b"\t")[:2] for answer in answers] == [[b"not", line] for line in lines]


def test_the_published_syntax_is_printed(tmp_path: Path) -> None:
    from imgproxy.grammar import SYNTAX

    assert run(tmp_path, "check", "--syntax").stdout.decode() == SYNTAX + "\n"


def test_sign_wants_a_key(tmp_path: Path) -> None:
    done = run(tmp_path, "sign", f"{HASH}.jpg")
    assert done.returncode == 1
    assert b"IMG_KEYS" in done.stderr


def test_sign_prints_a_path_and_says_until_when(tmp_path: Path) -> None:
    keys = {"IMG_KEYS": "00" * 16}.items()
    signed = run(tmp_path, "sign", f"{HASH}.jpg", settings=keys).stdout.decode().strip().split("/")
    assert (signed[:2], signed[3:]) == (["", "s"], [f"{HASH}.jpg"])
    short = run(tmp_path, "sign", f"{HASH}.jpg", "--expires", "60", settings=keys).stdout.decode().strip().split("/")
    assert time.time() < int(short[3]) <= time.time() + 61


@pytest.mark.parametrize("seconds", ["99999999999999", "-9999999999"])
def test_sign_says_in_words_which_moments_there_are(tmp_path: Path, seconds: str) -> None:
    done = run(tmp_path, "sign", f"{HASH}.jpg", "--expires", seconds, settings={"IMG_KEYS": "00" * 16}.items())
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"ten or eleven digits" in done.stderr
    assert b"Traceback" not in done.stderr


def test_config_prints_every_setting_and_hides_secrets(tmp_path: Path) -> None:
    done = run(tmp_path, "config", settings={"IMG_KEYS": "ab" * 16, "IMG_CORZ": "x"}.items())
    text = done.stdout.decode()
    assert f"data = {tmp_path / 'var'}\t# IMG_DATA" in text
    assert "limits.pixels = 50000000\t# default" in text
    assert "ab" * 16 not in text
    assert b"IMG_CORZ" in done.stderr
    assert b"IMG_CORS" in done.stderr


def test_every_mistake_in_the_settings_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"IMG_POLICY": "maybe", "IMG_WORKERS": "many", "IMG_PRESETS": "thumb=-0x0.jpg", "IMG_STORE": "ftp://x"}
    for command in (["serve"], ["put", str(written(tmp_path / "a.png", png(2, 2)))], ["config"]):
        done = run(tmp_path, *command, settings=wrong.items())
        assert done.returncode != 0
        assert b"Traceback" not in done.stderr
        for word in (b"policy", b"workers", b"presets", b"store"):
            assert word in done.stderr


def test_the_package_and_the_grammar_load_nothing_foreign(tmp_path: Path) -> None:
    code = "import sys; from imgproxy import urls, grammar; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=tmp_path, timeout=60)
    assert not {"pyvips", "falcon", "msgspec", "click"} & set(done.stdout.decode().split())
