"""Whose objects they are, and how one is let in: TempAuth (v1), or Keystone v3 by password or by application credential.

An account is a value. `enter` asks for a pass, every time anew: who shares it and when it is renewed is decided in `cluster`.
What `account_from` reads are the variables of the OpenStack command line, so whoever can say `swift list` has said enough:

| way in | variables |
| --- | --- |
| v1, TempAuth | `ST_AUTH` `ST_USER` `ST_KEY` |
| Keystone v3, password | `OS_AUTH_URL` `OS_USERNAME` or `OS_USER_ID`, `OS_PASSWORD`, `OS_PROJECT_NAME` or `OS_PROJECT_ID`, and domains |
| Keystone v3, application credential | `OS_AUTH_URL` `OS_APPLICATION_CREDENTIAL_ID` `OS_APPLICATION_CREDENTIAL_SECRET` |
| all of them | `OS_REGION_NAME` `OS_INTERFACE` `OS_STORAGE_URL` `OS_CACERT` |

With both `ST_AUTH` and `OS_AUTH_URL`, `ST_AUTH` counts, as it does for the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import ParseResult, urlsplit

from swiftclient.client import HTTPConnection, http_connection  # type: ignore[import-untyped]
from swiftclient.exceptions import ClientException  # type: ignore[import-untyped]

from imgproxy.errors import BadSettings

Timeout = tuple[float, float]
"""Seconds to connect, seconds to wait for the next bytes."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What lets a request in: the address of the account's containers, and a token."""

    url: str
    token: str = field(repr=False)


def close_mouthed(http: tuple[ParseResult, HTTPConnection]) -> tuple[ParseResult, HTTPConnection]:
    """A connection that shows its tokens to nobody it was not made for: it follows no redirection, and no proxy of the environment."""
    http[1].request_session.trust_env = False
    http[1].request_session.max_redirects = 0
    return http


class SwiftAccount(Protocol):
    """Somebody who is let in."""

    @property
    def cacert(self) -> str:
        """A file of certificates to trust, if not the usual ones."""

    @property
    def settings(self) -> str:
        """The settings to look at when this account is refused."""

    def enter(self, timeout: Timeout) -> Pass:
        """Ask for a pass; raises `ClientException` or what the connection raises."""


@dataclass(frozen=True, slots=True)
class TempAuth:
    """An account of the v1 protocol: TempAuth, SwAuth, and what many other stores offer as "Swift"."""

    auth_url: str
    user: str
    key: str = field(repr=False)
    storage_url: str = ""
    cacert: str = ""

    @property
    def settings(self) -> str:
        return "ST_AUTH, ST_USER and ST_KEY"

    def enter(self, timeout: Timeout) -> Pass:
        """One GET; what counts of the answer are two headers."""
        address, line = close_mouthed(http_connection(self.auth_url, cacert=self.cacert or None, timeout=timeout))
        try:
            line.request("GET", address.path, "", {"X-Auth-User": self.user, "X-Auth-Key": self.key})
            answer = line.getresponse()
            body = answer.read()
        finally:
            line.close()
        url = self.storage_url or answer.getheader("x-storage-url")
        token = answer.getheader("x-storage-token") or answer.getheader("x-auth-token")
        if not 200 <= answer.status < 300:
            raise ClientException.from_response(answer, "no pass", body)
        if not url or not token:
            raise ClientException("no storage URL or no token where ST_AUTH points")
        return Pass(url, token)


@dataclass(frozen=True, slots=True)
class Keystone:
    """An account known to Keystone v3; `proof` are the fields of the password or of the application credential."""

    auth_url: str
    proof: Mapping[str, str] = field(repr=False)
    region: str = ""
    interface: str = "public"
    storage_url: str = ""
    cacert: str = ""

    @property
    def settings(self) -> str:
        if "password" in self.proof:
            return "OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, the domains and OS_REGION_NAME"
        return "OS_AUTH_URL, OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET and OS_REGION_NAME"

    def enter(self, timeout: Timeout) -> Pass:
        """One POST of a new session's; the catalogue that comes with the token says where the containers are."""
        from keystoneauth1.exceptions import ClientException as KeystoneError

        try:
            return self._entered(timeout)
        except KeystoneError as error:
            raise ClientException(type(error).__name__, http_status=getattr(error, "http_status", None)) from error

    def _entered(self, timeout: Timeout) -> Pass:
        from keystoneauth1.identity import v3
        from keystoneauth1.session import Session
        from requests import Session as Wire

        kind: Any = v3.Password if "password" in self.proof else v3.ApplicationCredential
        with Wire() as wire:
            wire.trust_env = False
            session = Session(session=wire, verify=self.cacert or True, timeout=sum(timeout))
            access = kind(auth_url=_versioned(self.auth_url), **self.proof).get_access(session)
        url = self.storage_url or access.service_catalog.url_for(
            service_type="object-store", interface=self.interface, region_name=self.region or None
        )
        return Pass(url, access.auth_token)


def account_from(environ: Mapping[str, str]) -> Keystone | TempAuth:
    """The account that the variables speak of, or `BadSettings` with each one that is missing."""
    if environ.get("ST_AUTH"):
        missing = [f"{name}: missing, and ST_AUTH needs it" for name in ("ST_USER", "ST_KEY") if not environ.get(name)]
        _refuse(missing + _unusable("ST_AUTH", environ))
        return TempAuth(
            environ["ST_AUTH"], environ["ST_USER"], environ["ST_KEY"], environ.get("OS_STORAGE_URL", ""), environ.get("OS_CACERT", "")
        )
    if not environ.get("OS_AUTH_URL"):
        _refuse(["ST_AUTH: missing, and OS_AUTH_URL too: one of them has to say where Swift lets its accounts in"])
    credential = environ.get("OS_APPLICATION_CREDENTIAL_ID") or environ.get("OS_APPLICATION_CREDENTIAL_NAME")
    proof, missing = _credential(environ) if credential else _password(environ)
    interface = (environ.get("OS_INTERFACE") or environ.get("OS_ENDPOINT_TYPE") or "public").removesuffix("URL")
    if interface not in ("public", "internal", "admin"):
        missing.append("OS_INTERFACE: expected public, internal or admin")
    _refuse(missing + _unusable("OS_AUTH_URL", environ))
    return Keystone(
        environ["OS_AUTH_URL"],
        proof,
        environ.get("OS_REGION_NAME", ""),
        interface,
        environ.get("OS_STORAGE_URL", ""),
        environ.get("OS_CACERT", ""),
    )


def _credential(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    proof = _chosen(environ, "application_credential_id", "application_credential_name")
    proof["application_credential_secret"] = environ.get("OS_APPLICATION_CREDENTIAL_SECRET", "")
    missing = []
    if not proof["application_credential_secret"]:
        missing.append("OS_APPLICATION_CREDENTIAL_SECRET: missing, and the application credential needs it")
    if "application_credential_name" in proof:
        proof |= _user(environ)
        if "user_id" not in proof and "username" not in proof:
            missing.append("OS_USERNAME: missing, or OS_USER_ID: a credential is named only among those of its user")
    return proof, missing


def _password(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    project = _chosen(environ, "project_id", "project_name") or _chosen(environ, "tenant_id", "tenant_name")
    project = {key.replace("tenant", "project"): value for key, value in project.items()}
    if "project_name" in project:
        project |= _domain(environ, "project_domain")
    user = _user(environ)
    missing = [] if user else ["OS_USERNAME: missing, or OS_USER_ID"]
    if not environ.get("OS_PASSWORD"):
        missing.append("OS_PASSWORD: missing")
    if not project:
        missing.append("OS_PROJECT_NAME: missing, or OS_PROJECT_ID")
    return {"password": environ.get("OS_PASSWORD", "")} | user | project, missing


def _user(environ: Mapping[str, str]) -> dict[str, str]:
    user = _chosen(environ, "user_id", "username")
    return user | _domain(environ, "user_domain") if "username" in user else user


def _domain(environ: Mapping[str, str], kind: str) -> dict[str, str]:
    return _chosen(environ, f"{kind}_id", f"{kind}_name") or {f"{kind}_id": environ.get("OS_DEFAULT_DOMAIN") or "default"}


def _chosen(environ: Mapping[str, str], *fields: str) -> dict[str, str]:
    """The first of these fields that is set, by its name."""
    for field_name in fields:
        value = environ.get("OS_" + field_name.upper())
        if value:
            return {field_name: value}
    return {}


def _unusable(name: str, environ: Mapping[str, str]) -> list[str]:
    try:
        address = urlsplit(environ[name])
        right = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        right = False
    mistakes = [] if right else [f"{name}: expected an address that begins with http:// or https://"]
    if environ.get("OS_CACERT") and not Path(environ["OS_CACERT"]).exists():
        mistakes.append("OS_CACERT: no such file")
    return mistakes


def _versioned(auth_url: str) -> str:
    """The address with its version: many a file of settings leaves it out."""
    bare = auth_url.rstrip("/")
    return bare if bare.endswith("/v3") else bare + "/v3"


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise BadSettings(mistakes)
