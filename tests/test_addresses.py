"""Which URLs are asked, and which never, however they are spelled."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.addresses import Rules, closed, network, taken_apart
from imgproxy.errors import BadAddress

CLOSED = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.254 169.254.0.1 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::a00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::7f00:1
    64:ff9b:1:ffff::a00:1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:1ff:ffff::1 2001:db8::1
    2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 3fff::1 3fff:fff:ffff::1 2600::5efe:a00:1 2600::200:5efe:7f00:1 2600::5efe:808:808
    4000::1 5f00::1 fc00::1 fd12:3456::1 fe80::1 fec0::1 feff::1 ff02::1 ff0e::1
""".split()

OPEN = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255 172.15.255.255 172.32.0.0
    192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    2001:200::1 2001:4860:4860::8888 2600:1406::1 2a00:1450:4001::200e 2003::1 3ffe::1
""".split()


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_is_not_public_is_refused_and_the_log_can_say_why(address: str) -> None:
    assert closed(ip_address(address))
    with pytest.raises(BadAddress) as told:
        Rules().admit(["8.8.8.8", address])
    assert address in told.value.where
    assert address not in str(told.value)


@pytest.mark.parametrize("address", OPEN)
def test_an_address_that_is_public_is_asked(address: str) -> None:
    assert closed(ip_address(address)) == ""
    Rules().admit([address])


@given(st.ip_addresses(v=4))
def test_no_ipv4_in_ipv6_is_asked_in_any_form(inner: object) -> None:
    number = int(inner)  # type: ignore[call-overload]
    for wrapped in (
        number,
        0xFFFF << 32 | number,
        (0x64FF9B << 96) | number,
        (0x2002 << 112) | number << 80,
        (0x2A00 << 112) | 0x5EFE << 32 | number,
    ):
        assert closed(ip_address(wrapped.to_bytes(16, "big")))


def test_a_name_that_leads_nowhere_is_not_asked() -> None:
    with pytest.raises(BadAddress):
        Rules().admit([])


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.org/",
            "file:///etc/passwd",
            "gopher://example.org/",
            "//example.org/",
            "example.org",
            "",
            "http:",
            "http://",
            "http:///a",
        ),
        *("javascript:alert(1)", "http:example.org", "http://user@example.org/", "http://user:pw@example.org/", "http://@example.org/"),
        *("http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/"),
        *(
            "http://127.0.1/",
            "http://0/",
            "http://0x/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://example.0x7f/",
            "http://127.0.0.01/",
        ),
        *("http://[::1%25eth0]/", "http://[::1%eth0]/", "http://[fe80::1/", "http://[127.0.0.1]/", "http://[v1.a]/", "http://::1/"),
        *("http://ex ample.org/", "http://example.org\\@127.0.0.1/", "http://example.org\n/", "http://\texample.org/", "http://a\x7f.org/"),
        *(
            "http://exam%70le.org/",
            "http://a.org/\ud800",
            "http://a..org/",
            "http://.org/",
            "http://-a.org/",
            "http://a-.org/",
            "http://" + "a" * 64 + ".org/",
        ),
        *(
            "http://" + "a." * 130 + "org/",
            "http://bücher.example/",
            "http://①②⑦.⓪.⓪.①/",
            "http://\uff11\uff12\uff17.0.0.1/",
            "http://example。org/",
        ),
        *(
            "http://example.org:99999/",
            "http://example.org:-1/",
            "http://example.org:8x/",
            "http://example.org:1:2/",
            "http://a.org/" + "x" * 5000,
        ),
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        Rules().target(url)


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("http://Example.ORG", "http://example.org/"),
        ("HTTPS://example.org:443/a/b.jpg?q=1&r#part", "https://example.org/a/b.jpg?q=1&r"),
        ("http://example.org.:80/", "http://example.org/"),
        ("http://8.8.8.8/%41?%zz", "http://8.8.8.8/%41?%zz"),
        ("http://[2600:0::1]/é?ü", "http://[2600::1]/%C3%A9?%C3%BC"),
        ("http://a_b.example.org:80//x/../y", "http://a_b.example.org//x/../y"),
    ],
)
def test_a_plain_url_is_asked_in_one_spelling(url: str, spelled: str) -> None:
    assert str(Rules().target(url)) == spelled


@given(st.one_of(st.text(), st.builds("http://{}{}".format, st.text(), st.text()), st.builds("http://a.org{}".format, st.text())))
def test_any_text_is_a_url_of_one_spelling_or_refused(text: str) -> None:
    try:
        spelled = str(Rules(ports=tuple(range(65536))).target(text))
    except BadAddress:
        return
    assert str(taken_apart(spelled)) == spelled
    assert spelled.isascii()


@pytest.mark.parametrize("port", [0, 22, 25, 6379, 8080, 65535])
def test_a_port_that_is_not_allowed_is_refused(port: int) -> None:
    with pytest.raises(BadAddress):
        Rules().target(f"http://example.org:{port}/")
    assert Rules(ports=(port,)).target(f"http://example.org:{port}/").port == port


def test_hosts_may_be_demanded() -> None:
    rules = Rules(hosts=("example.org", "*.example.net"))
    for host in ("example.org", "a.example.net", "a.b.example.net"):
        assert rules.target(f"http://{host}/").host == host
    for host in ("a.example.org", "example.net", "badexample.net", "example.org.evil.com"):
        with pytest.raises(BadAddress):
            rules.target(f"http://{host}/")


def test_networks_may_be_allowed_and_nothing_beside_them() -> None:
    rules = Rules(networks=(network("127.0.0.0/8"), network("fd00::/64")))
    rules.admit(["127.0.0.1", "fd00::1"])
    for address in ("10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00:1::1"):
        with pytest.raises(BadAddress):
            rules.admit([address])


def test_a_redirect_leads_from_where_it_stands() -> None:
    target = taken_apart("https://example.org/a/b?c")
    assert [target.follow(to) for to in ("d", "/d", "//e.org/d", "http://e.org/")] == [
        *("https://example.org/a/d", "https://example.org/d", "https://e.org/d", "http://e.org/")
    ]
    for to in ("http://[", "//[::1", "http://[v1.a"):
        with pytest.raises(BadAddress):
            target.follow(to)
