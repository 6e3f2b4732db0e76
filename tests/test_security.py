"""Signed paths, and who may have what."""

from __future__ import annotations

import base64
import doctest
import hashlib
import hmac
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgproxy import security
from imgproxy.errors import BadName, Forbidden
from imgproxy.grammar import Base, parse
from imgproxy.security import Keyring, Policy
from tests.naming import HASH, lawful, well_spelled

OLD, NEW, OTHER = b"an older key of some length", b"a newer key of some length", b"a key that nobody here knows"
NAME = f"{HASH}-1024x512.jpg"
ORIGINAL = f"{HASH}.jpg"
NOON = 1_900_000_000
BASE64URL = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"

names = well_spelled().filter(lawful)
expiries = st.one_of(st.none(), st.integers(10**9, 10**11 - 1))
keys = st.binary(min_size=16, max_size=80)


@pytest.fixture
def keyring() -> Keyring:
    return Keyring([NEW, OLD])


def signature(key: bytes, message: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode().rstrip("=")


# ---- signing and opening


@settings(deadline=None)
@given(names, expiries, st.lists(keys, min_size=1, max_size=4))
def test_what_was_signed_opens_to_the_same(name: str, expires: int | None, several: list[bytes]) -> None:
    keyring = Keyring(several)
    assert keyring.opened(keyring.sign(name, expires), now=0) == (name, expires)


def test_a_signed_path_is_the_one_that_openssl_makes() -> None:
    """`printf 'imgproxy read v1\\n1900000000\\n%s.jpg' $HASH | openssl dgst -sha256 -hmac 'sixteen or more bytes' -binary | base64`."""
    keyring = Keyring([b"sixteen or more bytes"])
    assert keyring.sign(ORIGINAL, 1900000000) == f"/s/Bsnpr-ezsNRHPQFyia2H9n2om4IKpgZsfqcL_BNaDWA/1900000000/{ORIGINAL}"
    assert keyring.sign(ORIGINAL) == f"/s/KpLZzH1ecIkRcrLLdfr1qxRJ1GOOKck3X0m99NkNiio/{ORIGINAL}"


def test_the_first_key_signs_and_every_key_opens(keyring: Keyring) -> None:
    assert keyring.sign(NAME) == Keyring([NEW]).sign(NAME) != Keyring([OLD]).sign(NAME)
    for key in (NEW, OLD):
        assert keyring.opened(Keyring([key]).sign(NAME, NOON), now=0) == (NAME, NOON)


def test_a_key_that_was_taken_away_opens_nothing_any_more() -> None:
    path = Keyring([OLD]).sign(NAME)
    assert Keyring([NEW, OLD]).opened(path, now=0) == (NAME, None)
    with pytest.raises(Forbidden, match="the signature does not match"):
        Keyring([NEW]).opened(path, now=0)


@settings(deadline=None)
@given(keys, keys, names)
def test_a_path_opens_with_its_own_key_only(one: bytes, other: bytes, name: str) -> None:
    # HMAC fills a short key up with zeros, and hashes one that is longer than a block
    if one.ljust(64, b"\0") != other.ljust(64, b"\0"):
        with pytest.raises(Forbidden):
            Keyring([other]).opened(Keyring([one]).sign(name), now=0)


@pytest.mark.parametrize(
    ("now", "opens"), [(0, True), (NOON - 1, True), (NOON - 0.001, True), (NOON, False), (NOON + 0.5, False), (2.0**60, False)]
)
def test_a_signed_path_expires_to_the_second(keyring: Keyring, now: float, opens: bool) -> None:
    path = keyring.sign(NAME, NOON)
    if opens:
        assert keyring.opened(path, now) == (NAME, NOON)
    else:
        with pytest.raises(Forbidden, match="expired"):
            keyring.opened(path, now)


def test_a_path_without_expiry_opens_for_ever(keyring: Keyring) -> None:
    assert keyring.opened(keyring.sign(NAME), now=2.0**60) == (NAME, None)


def test_a_wrong_signature_is_never_told_that_it_expired(keyring: Keyring) -> None:
    with pytest.raises(Forbidden, match="the signature does not match"):
        keyring.opened(Keyring([OTHER]).sign(NAME, NOON), now=NOON + 1)


def test_every_key_is_tried_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(ours: str, theirs: str) -> bool:
        compared.append(ours)
        return ours == theirs

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keyring = Keyring([NEW, OLD, OTHER])
    for key in (NEW, OLD, OTHER):
        compared.clear()
        keyring.opened(Keyring([key]).sign(NAME), now=0)
        assert len(set(compared)) == 3


# ---- what does not open


@pytest.mark.parametrize("expires", [None, NOON])
def test_any_change_of_a_single_character_is_refused(keyring: Keyring, expires: int | None) -> None:
    path = keyring.sign(f"{HASH}-9x-q_7.jpg", expires)
    opened = 0
    for at in range(len(path) + 1):
        for char in BASE64URL + "./=+%\n é\0":
            for changed in {path[:at] + char + path[at + 1 :], path[:at] + char + path[at:], path[:at] + path[at + 1 :]} - {path}:
                with pytest.raises((Forbidden, BadName)):
                    keyring.opened(changed, now=0)
                opened += 1
    assert opened > 15_000


@settings(deadline=None, max_examples=300)
@given(names, expiries, st.data())
def test_any_change_of_any_signed_path_is_refused(name: str, expires: int | None, data: st.DataObject) -> None:
    keyring = Keyring([NEW, OLD])
    path = keyring.sign(name, expires)
    low, high = sorted((data.draw(st.integers(0, len(path))), data.draw(st.integers(0, len(path)))))
    changed = path[:low] + data.draw(st.one_of(st.text(max_size=3), st.text(BASE64URL, max_size=3))) + path[high:]
    if changed != path:
        with pytest.raises((Forbidden, BadName)):
            keyring.opened(changed, now=0)


def test_a_signature_has_one_spelling_although_its_last_character_has_spare_bits(keyring: Keyring) -> None:
    path = keyring.sign(NAME)
    signature, rest = path[3:46], path[46:]
    spelled = base64.urlsafe_b64decode(signature + "=")
    twins = [signature[:-1] + char for char in BASE64URL if base64.urlsafe_b64decode(signature[:-1] + char + "=") == spelled]
    assert len(twins) == 4
    for twin in set(twins) - {signature}:
        with pytest.raises(Forbidden, match="the signature does not match"):
            keyring.opened(f"/s/{twin}{rest}", now=0)


def test_a_signature_is_for_one_name_and_one_expiry(keyring: Keyring) -> None:
    plain, timed = keyring.sign(NAME)[3:46], keyring.sign(NAME, NOON)[3:46]
    for path in (
        f"/s/{timed}/{NAME}",
        f"/s/{plain}/{NOON}/{NAME}",
        f"/s/{timed}/{NOON + 1}/{NAME}",
        f"/s/{plain}/{ORIGINAL}",
        f"/s/{timed}/{NOON}/{ORIGINAL}",
    ):
        with pytest.raises(Forbidden, match="the signature does not match"):
            keyring.opened(path, now=0)


@pytest.mark.parametrize(
    "message", [NAME, f"\n{NAME}", f"imgproxy read v1\n{NAME}", f"imgproxy read v1{NAME}", f"imgproxy admin v1\n\n{NAME}", f"/{NAME}"]
)
def test_what_the_key_signed_for_another_purpose_opens_nothing(keyring: Keyring, message: str) -> None:
    ours = f"imgproxy read v1\n\n{NAME}"
    assert keyring.opened(f"/s/{signature(NEW, ours.encode())}/{NAME}", now=0) == (NAME, None)
    with pytest.raises(Forbidden, match="the signature does not match"):
        keyring.opened(f"/s/{signature(NEW, message.encode())}/{NAME}", now=0)


SIGNATURE = "A" * 43
A_SIGNATURE = 'expected a signature of 43 characters of A-Z a-z 0-9 - _, and "/"'
A_NAME = "expected a name, or an expiry of ten or eleven digits before it"


@pytest.mark.parametrize(
    ("path", "at", "why"),
    [
        ("", 0, 'expected "/s/" and a signature'),
        (f"/{NAME}", 0, 'expected "/s/" and a signature'),
        (f"s/{SIGNATURE}/{NAME}", 0, 'expected "/s/" and a signature'),
        ("/s/", 3, A_SIGNATURE),
        (f"/s/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE}A/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE}=/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE[1:]}/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE[1:]}+/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE[1:]}é/{NAME}", 3, A_SIGNATURE),
        (f"/s/{SIGNATURE}//{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/0{NOON}/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/123456789/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/123456789012/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/+{NOON}/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/٣٣٣٣٣٣٣٣٣٣/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/{NOON}/{NOON}/{NAME}", 47, A_NAME),
        (f"/s/{SIGNATURE}/", 47, "expected a hash of 64 lowercase hex digits"),
        (f"/s/{SIGNATURE}/{NOON}/", 58, "expected a hash of 64 lowercase hex digits"),
        (f"/s/{SIGNATURE}/{NAME}\n", 47 + 74, "expected a format: avif, gif, jpg, jxl, png, webp"),
        (f"/s/{SIGNATURE}/{NOON}/{HASH}-9x-q_80.jpg", 58 + 68, "states the default: jpg has quality 80"),
        (f"/s/{SIGNATURE}/{'a' * 10**6}", 47 + 255, "no name is longer than 255 characters"),
    ],
)
def test_a_path_that_cannot_be_a_signed_one_is_told_where(keyring: Keyring, path: str, at: int, why: str) -> None:
    with pytest.raises(BadName) as caught:
        keyring.opened(path, now=0)
    assert (caught.value.text, caught.value.at, caught.value.why) == (path, at, why)


# ---- what cannot be signed


@pytest.mark.parametrize("name", ["", "favicon.ico", f"{NAME}\n", f"{HASH}-9x-q_80.jpg", f"1900000000/{NAME}", f"/{NAME}"])
def test_only_names_are_signed(keyring: Keyring, name: str) -> None:
    with pytest.raises(BadName):
        keyring.sign(name)


@pytest.mark.parametrize("expires", [0, -1, 999_999_999, 10**11, -1_900_000_000])
def test_an_expiry_has_ten_or_eleven_digits(keyring: Keyring, expires: int) -> None:
    with pytest.raises(ValueError, match="ten or eleven digits"):
        keyring.sign(NAME, expires)


@pytest.mark.parametrize("poor", [[], [b""], [b"fifteen bytes.."], [NEW, b"short"]])
def test_a_keyring_needs_keys_worth_the_name(poor: list[bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        Keyring(poor)


def test_a_keyring_does_not_print_its_keys(keyring: Keyring) -> None:
    assert "newer" not in repr(keyring) + str(keyring)


# ---- policy

LISTED = frozenset({"-256x256-fill.webp", "-1024x512.jpg"})


@pytest.mark.parametrize(
    ("policy", "text", "plain", "signed"),
    [
        (Policy(), NAME, True, True),
        (Policy(), ORIGINAL, True, True),
        (Policy(renditions="any"), f"{HASH}-7x.jpg", True, True),
        (Policy(renditions="listed", listed=LISTED), NAME, True, True),
        (Policy(renditions="listed", listed=LISTED), f"{HASH}-1024x513.jpg", False, True),
        (Policy(renditions="listed", listed=LISTED), f"{HASH}-1024x512.webp", False, True),
        (Policy(renditions="listed", listed=LISTED), f"{HASH}-1024x512-q_7.jpg", False, True),
        (Policy(renditions="listed", listed=LISTED), ORIGINAL, True, True),
        (Policy(renditions="listed"), NAME, False, True),
        (Policy(renditions="signed", listed=LISTED), NAME, False, True),
        (Policy(renditions="signed"), ORIGINAL, True, True),
        (Policy(originals="signed"), ORIGINAL, False, True),
        (Policy(originals="private"), ORIGINAL, False, False),
        (Policy(originals="private"), NAME, True, True),
        (Policy(originals="signed", renditions="listed", listed=LISTED), NAME, True, True),
        # a word that is no policy opens nothing without a signature, and no original at all
        (Policy(renditions="everything"), NAME, False, True),  # type: ignore[arg-type]
        (Policy(originals="everything"), ORIGINAL, False, False),  # type: ignore[arg-type]
    ],
)
def test_a_policy_says_who_may_have_what(policy: Policy, text: str, plain: bool, signed: bool) -> None:
    name = parse(text)
    for asked_signed, may in ((False, plain), (True, signed)):
        if may:
            policy.allows(name, asked_signed)
        else:
            with pytest.raises(Forbidden):
                policy.allows(name, asked_signed)


@pytest.mark.parametrize(
    ("policy", "text", "sentence"),
    [
        (Policy(renditions="listed", listed=LISTED), f"{HASH}-7x.jpg", "-7x.jpg is not listed here: it needs a signed path"),
        (Policy(renditions="signed"), NAME, "renditions need a signed path here"),
        (Policy(originals="signed"), ORIGINAL, "originals need a signed path here"),
        (Policy(originals="private"), ORIGINAL, "originals are not served here, only renditions"),
    ],
)
def test_a_refusal_says_what_would_help(policy: Policy, text: str, sentence: str) -> None:
    with pytest.raises(Forbidden) as caught:
        policy.allows(parse(text), signed=False)
    assert str(caught.value) == sentence


@settings(deadline=None)
@given(names, st.booleans())
def test_a_list_opens_the_renditions_that_it_names_and_no_others(text: str, signed: bool) -> None:
    name = parse(text)
    if not isinstance(name, Base):
        Policy(renditions="listed", listed=frozenset({name.suffix})).allows(name, signed=False)
        Policy(renditions="listed").allows(name, signed=True)
        with pytest.raises(Forbidden):
            Policy(renditions="listed", listed=LISTED - {name.suffix}).allows(name, signed=False)


@pytest.mark.parametrize("suffix", [".jpg", "256x256.webp", "-256x256", "", "-9x-q_80.jpg", "0-9x.jpg"])
def test_what_could_never_match_cannot_be_listed(suffix: str) -> None:
    with pytest.raises(BadName):
        Policy(renditions="listed", listed=frozenset({suffix}))


def test_the_examples_of_the_module_are_true() -> None:
    found = doctest.testmod(security)
    assert (found.failed, found.attempted) == (0, 1)
