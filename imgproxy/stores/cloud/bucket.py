"""Which bucket, at which service, with which keys, and how long it may take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from imgproxy.errors import BadSettings

_LONGEST = timedelta(hours=6)
"""The library's bound for all of a request; the slow reading of a large object is part of it, so it bounds nothing here."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a connection, for the next bytes, and for a piece to be sent; and how often to try again."""

    connect: float = 1.0
    read: float = 5.0
    write: float = 30.0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class _Service:
    """How to reach a service; `keys` are what to look at when it refuses, `known` all the variables that it has."""

    store: Callable[..., Any]
    keys: str
    known: str


_SERVICES = {
    "s3": _Service(
        S3Store,
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        """AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_SKIP_SIGNATURE AWS_UNSIGNED_PAYLOAD
        AWS_REGION AWS_DEFAULT_REGION AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_VIRTUAL_HOSTED_STYLE_REQUEST
        AWS_ROLE_ARN AWS_ROLE_SESSION_NAME AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
        AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
        AWS_SERVER_SIDE_ENCRYPTION AWS_SSE_KMS_KEY_ID AWS_SSE_BUCKET_KEY_ENABLED AWS_SSE_CUSTOMER_KEY_BASE64
        AWS_CHECKSUM_ALGORITHM AWS_CONDITIONAL_PUT AWS_DISABLE_BULK_DELETE AWS_REQUEST_PAYER""",
    ),
    "gs": _Service(
        GCSStore,
        "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
        """GOOGLE_APPLICATION_CREDENTIALS GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_PATH GOOGLE_SERVICE_ACCOUNT_KEY
        GOOGLE_BEARER_TOKEN GOOGLE_SKIP_SIGNATURE GOOGLE_BASE_URL""",
    ),
    "az": _Service(
        AzureStore,
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        """AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_SAS_TOKEN AZURE_STORAGE_TOKEN AZURE_SKIP_SIGNATURE
        AZURE_STORAGE_ENDPOINT AZURE_ENDPOINT AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_TENANT_ID AZURE_AUTHORITY_HOST
        AZURE_FEDERATED_TOKEN_FILE AZURE_MSI_ENDPOINT AZURE_OBJECT_ID AZURE_MSI_RESOURCE_ID""",
    ),
}
_ADDRESSES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the objects are: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`."""

    scheme: str
    name: str
    prefix: str = ""

    @classmethod
    def of(cls, url: str) -> Bucket:
        """The bucket that a URL means, or `ValueError`, which does not repeat the URL: somebody may have put keys into it."""
        parts = urlsplit(url)
        if parts.scheme not in _SERVICES:
            raise ValueError("expected s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
        if not re.fullmatch(r"[a-z0-9$][a-z0-9._-]{1,221}", parts.netloc):
            raise ValueError("expected nothing but the name of a bucket after the //: keys and addresses go into the environment")
        if parts.query or parts.fragment or not re.fullmatch(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*/?", parts.path):
            raise ValueError("expected nothing but a prefix of A-Z a-z 0-9 . _ - and / after the bucket")
        return cls(parts.scheme, parts.netloc, parts.path.strip("/"))

    @property
    def keys(self) -> str:
        """The variables to look at when the service refuses."""
        return _SERVICES[self.scheme].keys


def connected(bucket: Bucket, options: Mapping[str, str], patience: Patience, seconds: float) -> Any:
    """A client that waits so many seconds for each answer, the sending of what is answered included.

    Of `options` it takes the service's own variables; it reads the environment as well, where they do not speak.
    """
    service = _SERVICES[bucket.scheme]
    said = {name: options[name] for name in service.known.split() if options.get(name)}
    waits = {"connect_timeout": timedelta(seconds=patience.connect), "read_timeout": timedelta(seconds=seconds), "timeout": _LONGEST}
    pauses = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(milliseconds=500), "base": 2}
    try:
        return service.store(
            bucket.name,
            prefix=bucket.prefix or None,
            config=said,
            client_options={"allow_http": any(said.get(name, "").startswith("http://") for name in _ADDRESSES), **waits},
            retry_config={"max_retries": patience.retries, "retry_timeout": timedelta(seconds=seconds), "backoff": pauses},
        )
    except (BaseError, ValueError, OSError) as error:
        raise BadSettings([f"IMG_STORE: bucket {bucket.name} cannot be reached with these settings: check {service.keys}"]) from error
