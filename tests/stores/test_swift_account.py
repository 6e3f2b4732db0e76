"""Being let in to Swift: what the environment says, what a refusal says, and one pass for sixteen threads."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from imgproxy.errors import BadSettings, StoreDown
from imgproxy.stores.swift import Container, Keystone, Swift, SwiftAccount, SwiftStore, TempAuth, account_from
from imgproxy.stores.swift.account import Pass, Timeout
from tests.identity import REGION, Identity
from tests.stores.conformance import body
from tests.swift_fixtures import PATIENCE, account_of, new_store, swift_box
from tests.swift_fixtures import swift as swift
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import Shape, SwiftBox

V1 = {"ST_AUTH": "http://swift.test/auth/v1.0", "ST_USER": "test:tester", "ST_KEY": "testing"}
BY_PASSWORD = {"OS_AUTH_URL": "http://keys.test:5000", "OS_USERNAME": "alice", "OS_PASSWORD": "wonder", "OS_PROJECT_NAME": "pictures"}
BY_CREDENTIAL = {
    "OS_AUTH_URL": "http://keys.test:5000/v3",
    "OS_AUTH_TYPE": "v3applicationcredential",
    "OS_APPLICATION_CREDENTIAL_ID": "cred-1",
    "OS_APPLICATION_CREDENTIAL_SECRET": "rabbit",
}


# ---- the environment


def test_the_variables_of_v1_make_a_v1_account() -> None:
    assert account_from(V1) == TempAuth("http://swift.test/auth/v1.0", "test:tester", "testing")
    assert account_from(V1 | BY_PASSWORD) == account_from(V1)
    assert account_from(V1 | {"OS_STORAGE_URL": "http://near.test/v1/AUTH_x"}).storage_url == "http://near.test/v1/AUTH_x"


def test_the_variables_of_a_password_make_a_keystone_account() -> None:
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    who = {"username": "alice", "password": "wonder", "project_name": "pictures"}
    assert account_from(BY_PASSWORD) == Keystone("http://keys.test:5000", who | domains)
    named = account_from(
        BY_PASSWORD
        | {"OS_USER_DOMAIN_NAME": "Staff", "OS_PROJECT_DOMAIN_ID": "d7", "OS_REGION_NAME": "north", "OS_ENDPOINT_TYPE": "internalURL"}
    )
    expected = who | {"user_domain_name": "Staff", "project_domain_id": "d7"}
    assert named == Keystone("http://keys.test:5000", expected, "north", "internal")


def test_ids_need_no_domains_and_a_tenant_is_a_project() -> None:
    by_id = {"OS_AUTH_URL": "http://keys.test", "OS_USER_ID": "u1", "OS_PASSWORD": "wonder", "OS_TENANT_ID": "p1"}
    assert account_from(by_id) == Keystone("http://keys.test", {"user_id": "u1", "password": "wonder", "project_id": "p1"})


def test_the_variables_of_a_credential_make_a_keystone_account() -> None:
    proof = {"application_credential_id": "cred-1", "application_credential_secret": "rabbit"}
    assert account_from(BY_CREDENTIAL) == Keystone("http://keys.test:5000/v3", proof)


@pytest.mark.parametrize("name", [*V1, *BY_PASSWORD, "OS_APPLICATION_CREDENTIAL_SECRET"])
def test_a_missing_variable_is_named(name: str) -> None:
    whole = next(environ for environ in (V1, BY_PASSWORD, BY_CREDENTIAL) if name in environ)
    with pytest.raises(BadSettings) as told:
        account_from({key: value for key, value in whole.items() if key != name})
    assert [name in mistake for mistake in told.value.mistakes] == [True]


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(BadSettings) as told:
        account_from({"OS_AUTH_URL": "keys.test", "OS_INTERFACE": "open", "OS_CACERT": "/no/such/file"})
    assert {mistake.partition(":")[0] for mistake in told.value.mistakes} == {
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "OS_PROJECT_NAME",
        "OS_INTERFACE",
        "OS_CACERT",
    }


@pytest.mark.parametrize("url", ["ftp://x", "http://", "swift.test", "http://x:0", "http://x:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match="ST_AUTH: expected an address"):
        account_from(V1 | {"ST_AUTH": url})


@pytest.mark.parametrize("environ", [V1, BY_PASSWORD, BY_CREDENTIAL], ids=["v1", "password", "credential"])
def test_an_account_does_not_print_its_secret(environ: dict[str, str]) -> None:
    shown = repr(account_from(environ))
    assert not any(secret in shown for secret in ("testing", "wonder", "rabbit"))


# ---- refusals


def test_a_wrong_key_is_named_with_its_container(swift_box_1: SwiftBox) -> None:
    store = SwiftStore(Container("photos-base"), Swift(replace(account_of(swift_box_1), key="guess"), PATIENCE))
    with pytest.raises(StoreDown, match=r"container photos-base: the account was refused \(401\): check ST_AUTH, ST_USER and ST_KEY"):
        store.check()
    with pytest.raises(StoreDown, match="refused"):
        store.get("k")


def test_no_permission_is_named_with_its_container(swift: Swift, swift_box_1: SwiftBox) -> None:
    name = new_store(swift)._name
    poor = Swift(replace(account_of(swift_box_1), user="test:tester3", key="testing3"), PATIENCE)
    with pytest.raises(StoreDown, match=rf"container {name}: no permission \(403\): check ST_AUTH, ST_USER and ST_KEY"):
        SwiftStore(Container(name), poor).get("k")
    poor.close()


def test_nobody_at_the_address_is_the_store_being_down() -> None:
    account = TempAuth("http://127.0.0.1:9/auth/v1.0", "test:tester", "testing")
    with pytest.raises(StoreDown, match="container photos-base: no connection to Swift"):
        SwiftStore(Container("photos-base"), Swift(account, replace(PATIENCE, pause=0.01))).get("k")


@pytest.mark.parametrize("path", ["/healthcheck", "/auth/v9", "/v1/AUTH_test/c"])
def test_something_else_at_the_address_is_said(swift_box_1: SwiftBox, path: str) -> None:
    account = replace(account_of(swift_box_1), auth_url=f"http://127.0.0.1:{swift_box_1.info['port']}{path}", storage_url="")
    with pytest.raises(StoreDown, match=r"check ST_AUTH"):
        SwiftStore(Container("photos-base"), Swift(account, PATIENCE)).get("k")


# ---- one pass for all


@dataclass(frozen=True)
class Counted:
    """An account that notes when it is asked for a pass."""

    account: SwiftAccount
    entered: list[float] = field(default_factory=list)
    slow: float = 0.0

    @property
    def cacert(self) -> str:
        return ""

    @property
    def settings(self) -> str:
        return self.account.settings

    def enter(self, timeout: Timeout) -> Pass:
        self.entered.append(time.monotonic())
        time.sleep(self.slow)
        return self.account.enter(timeout)


def test_sixteen_threads_are_let_in_by_one_pass(swift: Swift, swift_box_1: SwiftBox) -> None:
    name = new_store(swift)._name
    counted = Counted(account_of(swift_box_1), slow=0.2)
    store = SwiftStore(Container(name), Swift(counted, PATIENCE))
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: store.head("k"), range(16))) == [None] * 16
    assert len(counted.entered) == 1
    store.close()


def test_sixteen_threads_share_a_refusal(swift_box_1: SwiftBox) -> None:
    counted = Counted(replace(account_of(swift_box_1), key="guess"), slow=0.2)
    store = SwiftStore(Container("photos-base"), Swift(counted, PATIENCE))
    start = threading.Barrier(16)

    def ask(_: int) -> str:
        start.wait(10)
        with pytest.raises(StoreDown) as told:
            store.head("k")
        return str(told.value)

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1
    assert len(counted.entered) < 8


@pytest.fixture(scope="module")
def short_lived() -> Iterator[SwiftBox]:
    """A Swift whose tokens lapse after three seconds."""
    with swift_box(Shape(token_life=3)) as box:
        yield box


def under_load(store: SwiftStore, seconds: float) -> list[str]:
    """What went wrong while sixteen threads put and got for so long."""
    wrong: list[str] = []
    until = time.monotonic() + seconds

    def use(number: int) -> None:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            mine = f"{number}-{turn}".encode() * 100
            try:
                store.put(f"{number}-{turn % 3}", io.BytesIO(mine))
                wrong.extend(["other bytes"] * (body(store, f"{number}-{turn % 3}") != mine))
            except Exception as error:
                wrong.append(repr(error))
            time.sleep(0.05)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(use, range(16)))
    return wrong


def test_lapsing_tokens_are_renewed_once_for_all_and_nobody_notices(short_lived: SwiftBox) -> None:
    counted = Counted(account_of(short_lived))
    swift = Swift(counted, PATIENCE)
    assert under_load(new_store(swift), 7) == []
    assert 3 <= len(counted.entered) <= 6
    swift.close()


def keystone(identity: Identity, environ: dict[str, str]) -> Keystone:
    account = account_from(environ | {"OS_AUTH_URL": identity.auth_url, "OS_REGION_NAME": REGION, "OS_INTERFACE": "internal"})
    assert isinstance(account, Keystone)
    return account


@pytest.mark.parametrize("environ", [BY_PASSWORD, BY_CREDENTIAL], ids=["password", "credential"])
def test_keystone_lets_in_and_renews(short_lived: SwiftBox, environ: dict[str, str]) -> None:
    with Identity(account_of(short_lived)) as identity:
        swift = Swift(keystone(identity, environ), PATIENCE)
        assert under_load(new_store(swift), 4) == []
        assert 2 <= identity.given <= 4
        swift.close()


@pytest.mark.parametrize("environ", [BY_PASSWORD | {"OS_PASSWORD": "x"}, BY_CREDENTIAL | {"OS_APPLICATION_CREDENTIAL_SECRET": "x"}])
def test_a_proof_that_keystone_does_not_accept_is_named(short_lived: SwiftBox, environ: dict[str, str]) -> None:
    with Identity(account_of(short_lived)) as identity:
        account = keystone(identity, environ)
        with pytest.raises(StoreDown, match=rf"container photos-base: the account was refused \(401\): check {account.settings}"):
            SwiftStore(Container("photos-base"), Swift(account, PATIENCE)).check()


def test_a_region_without_swift_is_said(short_lived: SwiftBox) -> None:
    with Identity(account_of(short_lived)) as identity:
        account = replace(keystone(identity, BY_PASSWORD), region="west")
        with pytest.raises(StoreDown, match=r"Swift lets nobody in: check OS_AUTH_URL.*OS_REGION_NAME"):
            SwiftStore(Container("photos-base"), Swift(account, PATIENCE)).check()
