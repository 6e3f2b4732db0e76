"""Types by their first bytes, and what else a file says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.grammar import FORMATS, TYPES
from imgproxy.picture import EDITION_TIME, HEAD, MEDIA_TYPES, colour_signal, etag, sniff
from imgproxy.vips.tiny import TINY


def ftyp(major: str, *others: str) -> bytes:
    brands = b"".join(other.encode() for other in others)
    return (16 + len(brands)).to_bytes(4) + b"ftyp" + major.encode() + bytes(4) + brands + b"\0\0\1\x10meta"


@pytest.mark.parametrize(
    ("head", "type"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpg"),
        (b"\xff\xd8\xff\xdb", "jpg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "png"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\n\n\n\nWEBPVP8L", "webp"),
        (b"II*\0\x08\0\0\0", "tif"),
        (b"MM\0*\0\0\0\x08", "tif"),
        (b"II+\0\x08\0\0\0\x10", "tif"),
        (b"MM\0+\0\x08\0\0\0", "tif"),
        (b"\xff\x0a\xfa", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
        (b"%PDF-1.7", "pdf"),
        (ftyp("avif", "mif1", "miaf"), "avif"),
        (ftyp("avis", "msf1"), "avif"),
        (ftyp("mif1", "miaf", "avif"), "avif"),
        (ftyp("msf1", "iso8", "avis"), "avif"),
        (ftyp("heic", "mif1"), "heic"),
        (ftyp("heic", "mif1", "avif"), "heic"),
        (ftyp("hevc", "msf1"), "heic"),
        (ftyp("mif1", "heic"), "heic"),
        (ftyp("mif1", "miaf"), "heic"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg"),
        (b"<svg>", "svg"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn by hand -->\n<svg width='1'", "svg"),
        (b'<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd" [ <!ENTITY a "b"> ]>\n<svg:svg ', "svg"),
        (b" \r\n\t<!---><b>--><svg\n", "svg"),
    ],
)
def test_a_type_is_known_by_its_first_bytes(head: bytes, type: str) -> None:
    assert sniff(head) == type


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNg\r\n\x1a\n",
        b"GIF88a",
        b"RIFF\x10\0\0\0WAVE",
        b"RIFF\x10\0\0\0",
        b"II*\1",
        b"II+\0\x04\0\0\0",
        b"BM8x",
        b"P6\n1 1\n255\n",
        b"\xffO\xffQ",
        b"\x1f\x8b\x08\0",
        ftyp("isom", "mp42"),
        ftyp("qt  "),
        b"<html><svg>",
        b"<svgx>",
        b"<?xml version='1.0'?><html>",
        b"text <svg>",
        b"<!-- <svg> ",
        b" \xff\xd8\xff",
    ],
)
def test_what_is_none_of_ours_has_no_type(head: bytes) -> None:
    assert sniff(head) is None


def test_brands_beyond_the_box_do_not_count() -> None:
    assert sniff((16).to_bytes(4) + b"ftypisom" + bytes(4) + b"avif") is None


@given(st.binary(max_size=HEAD))
def test_any_bytes_have_a_known_type_or_none(head: bytes) -> None:
    assert sniff(head) in (*TYPES, None)


@pytest.mark.parametrize("filler", [b"<!---->", b"<!-- ", b"<?xml?>", b" ", b"<!DOCTYPE a[[[>", b"<!DOCTYPE a>"])
def test_a_long_prolog_is_read_in_no_time(filler: bytes) -> None:
    assert sniff((filler * HEAD)[:HEAD]) is None


@pytest.mark.parametrize("type", TINY)
def test_the_tiny_pictures_are_of_their_types(type: str) -> None:
    assert sniff(TINY[type][:HEAD]) == type


def test_every_type_and_every_format_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == {*TYPES, *FORMATS}


@pytest.mark.parametrize(
    ("head", "type", "signal"),
    [
        (b"....\0\0\0\x13colrnclx\0\x0c\0\x10\0\0\x80", "avif", (12, 16)),
        (b"....\0\0\0\x13colrnclx\0\x09\0\x12\0\0\x80", "heic", (9, 18)),
        (b"....\0\0\0\x04cICP\x09\x10\0\x01", "png", (9, 16)),
        (b"....\0\0\0\x04cICP\x09\x10\0\x01", "jpg", None),
        (b"....\0\0\0\x13colrprof", "avif", None),
        (b"", "png", None),
    ],
)
def test_the_colour_signal_is_read_beside_the_pixels(head: bytes, type: str, signal: tuple[int, int] | None) -> None:
    assert colour_signal(head, type) == signal


def test_the_tag_is_of_the_edition_and_the_size() -> None:
    assert etag(4096) == f'"{EDITION_TIME:x}-1000"'
