"""Where a command finds its server, and the token for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plain import png, written
from tests.serving import COMMAND, environment, free_port


def typed(home: Path, *words: str, **said: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(home / "nowhere"), "HOME": str(home), **said}
    env.pop("XDG_CONFIG_HOME", None)
    return subprocess.run([COMMAND, *words], env=env, cwd=home, capture_output=True, text=True, timeout=100, check=False)


def test_a_server_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    done = typed(tmp_path, "session", "list", "--server", f"http://127.0.0.1:{free_port()}", IMG_TOKEN="img_secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no connection" in done.stderr
    assert "Traceback" not in done.stderr
    assert "img_secret" not in done.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("where", ["IMG_TOKEN_FILE", "home"])
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o666])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, where: str, mode: int) -> None:
    path = tmp_path / "named" if where == "IMG_TOKEN_FILE" else tmp_path / ".config" / "imgproxy" / "token"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("img_secret\n")
    path.chmod(mode)
    named = {"IMG_TOKEN_FILE": str(path)} if where == "IMG_TOKEN_FILE" else {}
    done = typed(tmp_path, "log", IMG_SERVER=f"http://127.0.0.1:{free_port()}", **named)
    assert done.returncode == 1
    assert ("others may read" in done.stderr) == bool(mode & 0o077)
    assert ("no connection" in done.stderr) == (not mode & 0o077)


def test_no_token_and_no_url_are_told_in_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", png(4, 2))
    assert "IMG_TOKEN" in typed(tmp_path, "put", str(path), IMG_SERVER="http://127.0.0.1:1").stderr
    assert "a URL such as" in typed(tmp_path, "put", str(path), IMG_SERVER="example.org", IMG_TOKEN="x").stderr
    assert "No such file" in typed(tmp_path, "log", IMG_SERVER="http://127.0.0.1:1", IMG_TOKEN_FILE="nowhere/token").stderr


def test_what_is_of_one_node_alone_asks_no_server(tmp_path: Path) -> None:
    for command in (["restore"], ["follow"], ["export", "tree"], ["token", "list"], ["config"], ["serve"]):
        done = typed(tmp_path, *command, "--server", "http://127.0.0.1:1")
        assert done.returncode == 2
        assert "No such option" in done.stderr
    assert list(tmp_path.iterdir()) == []
