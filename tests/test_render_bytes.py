"""The bytes of a rendition: the same everywhere, small, and without what nobody needs to know."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from imgproxy.limits import Limits
from imgproxy.render import render
from tests.pictures import decoded, jpg, named, noise, png, quadrants, rendered, slope

ROOT = Path(__file__).parent.parent
DIGEST = """
import hashlib, sys
from imgproxy.grammar import parse
from imgproxy.limits import Limits
from imgproxy.render import render
with open(sys.argv[1], "rb") as source:
    for suffix in sys.argv[2:]:
        print(hashlib.sha256(render(source, parse("0" * 64 + suffix), Limits())).hexdigest())
"""
COPYRIGHT, ARTIST, MODEL = 0x8298, 0x013B, 0x0110


def with_exif(content: bytes, texts: dict[int, bytes]) -> bytes:
    """A JPEG with an EXIF block of these texts."""
    values, table, start = b"", b"", 8 + 2 + 12 * len(texts) + 4
    for tag, text in sorted(texts.items()):
        whole = text + b"\0" * max(1, 5 - len(text))
        table += struct.pack("<HHII", tag, 2, len(whole), start + len(values))
        values += whole
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(texts)) + table + bytes(4) + values
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


def test_the_same_name_gives_the_same_bytes_however_many_threads_and_processes(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(noise(700, 500)))
    suffixes = [
        "-full.avif",
        "-600x-blur_10.avif",
        "-full.jpg",
        "-300x200-fill_smart.webp",
        "-full-lossless.webp",
        "-300x.png",
        "-100x.gif",
    ]
    told = []
    for threads in ("1", "2", "8"):
        command = [sys.executable, "-c", DIGEST, str(photo), *suffixes]
        done = subprocess.run(command, env={"VIPS_CONCURRENCY": threads}, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100)
        told.append(done.stdout.split())
    with photo.open("rb") as source:
        here = [hashlib.sha256(render(source, named(suffix), Limits())).hexdigest() for suffix in suffixes]
    assert told == [here] * 3


@pytest.mark.parametrize("format", ["avif", "jpg", "png", "webp"])
@pytest.mark.parametrize(
    "copyright", ["© Jürgen (all) rights".encode(), "© Jürgen".encode("latin-1"), b"Photographer\0Editor", b"x" * 300, b"me (too)"]
)
def test_copyright_and_artist_are_kept_byte_for_byte_and_nothing_else(copyright: bytes, format: str) -> None:
    source = with_exif(jpg(quadrants()), {COPYRIGHT: copyright, ARTIST: "Ünal".encode(), MODEL: b"SecretCamera"})
    content = render(BytesIO(source), named(f"-40x.{format}"), Limits())
    assert copyright + b"\0" in content
    assert "Ünal".encode() in content
    assert b"SecretCamera" not in content
    assert decoded(content).width == 40


def test_a_gif_has_no_place_for_credits_and_still_comes() -> None:
    assert rendered(with_exif(jpg(quadrants()), {COPYRIGHT: b"Me"}), "-40x.gif").width == 40


@pytest.mark.parametrize("format", ["avif", "gif", "jpg", "png", "webp"])
def test_without_credits_there_is_no_metadata_at_all(format: str) -> None:
    image = quadrants().icc_transform("p3", input_profile="srgb").copy()
    source = with_exif(jpg(image), {MODEL: b"SecretCamera"})
    content = render(BytesIO(source), named(f"-40x.{format}"), Limits())
    assert b"SecretCamera" not in content
    fields = decoded(content).get_fields()
    assert not [field for field in fields if field.startswith(("exif", "xmp", "iptc", "icc", "orientation"))]


def test_the_place_where_a_picture_was_taken_is_never_told() -> None:
    source = with_exif(jpg(quadrants()), {COPYRIGHT: b"Me", MODEL: b"Secret", 0x010E: b"At home, 52.5 N"})
    content = render(BytesIO(source), named("-full.jpg"), Limits())
    assert b"52.5 N" not in content
    assert b"Me\0" in content


def test_each_format_is_smaller_than_the_last_by_default() -> None:
    photo = png(slope(400, 300).gaussblur(2))
    sizes = {format: len(render(BytesIO(photo), named(f"-full.{format}"), Limits())) for format in ("avif", "webp", "jpg")}
    assert sizes["avif"] < sizes["webp"] < sizes["jpg"]


def test_a_drawing_is_a_small_png() -> None:
    """Rows are filtered: a slope is a few kilobytes, not as many bytes as it has samples."""
    assert len(render(BytesIO(png(slope(400, 300))), named("-full.png"), Limits())) < 400 * 300 * 3 // 50
