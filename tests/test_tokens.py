"""Tokens: who may write. The rules, the file, and the commands."""

from __future__ import annotations

import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgproxy.cli import main
from imgproxy.errors import BadRecord, Missing, StoreDown, Stranger
from imgproxy.security import SCOPES, Grant, Tokens, digest_of, new_token
from imgproxy.tokens import TokenFile


def test_a_token_is_random_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    one, other = file.add("one", ["upload"]), file.add("other", ["write", "commit"])
    assert one != other
    assert len(one) == len("img_") + 43
    text = (tmp_path / "tokens.json").read_text()
    assert one not in text
    assert digest_of(one) in text
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


def test_a_token_is_for_its_scopes_and_admin_is_for_all() -> None:
    some, all = Grant("some", "", frozenset(("upload", "commit"))), Grant("all", "", frozenset(("admin",)))
    assert [scope for scope in SCOPES if some.allows(scope)] == ["upload", "commit"]
    assert [scope for scope in SCOPES if all.allows(scope)] == list(SCOPES)
    assert Grant("none", "", frozenset()).allows("any")


def test_a_token_ends_when_it_was_said_to() -> None:
    token = new_token()
    tokens = Tokens([Grant("a", digest_of(token), frozenset(("upload",)), expires=100.0)])
    assert tokens.opened(token, 99.9).name == "a"
    with pytest.raises(Stranger):
        tokens.opened(token, 100.0)


@pytest.mark.parametrize("text", ["", "img_", "x" * 47, "\udcff", "img_" + "A" * 43])
def test_what_is_no_token_opens_nothing(tmp_path: Path, text: str) -> None:
    file = TokenFile(tmp_path)
    file.add("a", ["admin"])
    with pytest.raises(Stranger):
        file.opened(text)


def test_what_is_revoked_opens_nothing_from_then_on_for_whoever_looks(tmp_path: Path) -> None:
    here, elsewhere = TokenFile(tmp_path), TokenFile(tmp_path)
    token = here.add("a", ["upload"])
    assert elsewhere.opened(token).name == "a"
    here.revoke("a")
    with pytest.raises(Stranger):
        elsewhere.opened(token)
    with pytest.raises(Missing):
        here.revoke("a")


def test_many_who_add_at_once_lose_none(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: TokenFile(tmp_path).add(f"n{n}", ["upload"]), range(24)))
    assert sorted(TokenFile(tmp_path).opened(token).name for token in tokens) == sorted(f"n{n}" for n in range(24))


@pytest.mark.parametrize(
    ("name", "scopes", "field"), [("", ["upload"], "name"), ("a b", ["upload"], "name"), ("a", [], "scope"), ("a", ["all"], "scope")]
)
def test_a_name_is_a_name_and_a_scope_is_one_of_ours(tmp_path: Path, name: str, scopes: list[str], field: str) -> None:
    with pytest.raises(BadRecord) as caught:
        TokenFile(tmp_path).add(name, scopes)
    assert caught.value.field == field


def test_a_name_is_given_once(tmp_path: Path) -> None:
    TokenFile(tmp_path).add("a", ["upload"])
    with pytest.raises(BadRecord, match="taken"):
        TokenFile(tmp_path).add("a", ["write"])


def test_the_first_token_is_made_where_there_is_none(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    assert file.begin()
    token = file.first.read_text().strip()
    assert stat.S_IMODE(file.first.stat().st_mode) == 0o600
    assert file.opened(token).allows("sync")
    assert not TokenFile(tmp_path).begin()
    assert file.first.read_text().strip() == token
    file.revoke("admin")
    assert not file.first.exists()
    assert not file.begin()


def test_no_first_token_is_made_where_one_is_given(tmp_path: Path) -> None:
    given = new_token()
    file = TokenFile(tmp_path, given)
    assert not file.begin()
    assert file.opened(given).allows("admin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tokens": [{"name": "a"}]}', "\x00"])
def test_a_file_that_cannot_be_read_lets_nobody_in_and_is_not_written_over(tmp_path: Path, text: str) -> None:
    file = TokenFile(tmp_path)
    token = file.add("a", ["admin"])
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(StoreDown):
        file.opened(token)
    with pytest.raises(StoreDown):
        file.add("b", ["admin"])
    assert (tmp_path / "tokens.json").read_text() == text


def test_tokens_are_made_listed_and_revoked_by_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG_DATA", str(tmp_path))
    run = CliRunner()
    made = run.invoke(main, ["token", "add", "ci", "--scope", "upload", "--scope", "commit", "--expires", "90d"])
    assert made.exit_code == 0
    assert TokenFile(tmp_path).opened(made.output.strip()).name == "ci"
    (grant,) = TokenFile(tmp_path).all()
    assert grant.expires is not None
    assert 89 < (grant.expires - time.time()) / 86_400 <= 90
    name, scopes, until = run.invoke(main, ["token", "list"]).output.rstrip("\n").split("\t")
    assert (name, scopes, len(until)) == ("ci", "commit,upload", 20)
    assert run.invoke(main, ["token", "revoke", "ci"]).exit_code == 0
    assert json.loads((tmp_path / "tokens.json").read_text()) == {"tokens": []}
    assert run.invoke(main, ["token", "revoke", "ci"]).exit_code == 1
    assert run.invoke(main, ["token", "add", "ci", "--scope", "all"]).exit_code == 2
    assert run.invoke(main, ["token", "add", "ci", "--scope", "write", "--expires", "soon"]).exit_code == 2
