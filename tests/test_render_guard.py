"""What is refused before a pixel is decoded, and what is found to be broken while decoding."""

from __future__ import annotations

import base64
import gc
import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
import pyvips

from imgproxy.errors import CannotRead, CannotWrite, Damaged, NotAnImage, TooMuch
from imgproxy.limits import Limits
from imgproxy.picture import Facts
from imgproxy.render import abilities, probe, render
from imgproxy.vips.tiny import TINY
from tests.pictures import (
    IMAGES,
    RED,
    animation,
    at,
    decoded,
    jpg,
    named,
    noise,
    oriented,
    pages,
    png,
    png_header,
    quadrants,
    rendered,
    solid,
    tiff_of_bands,
)

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="40" height="30">%s</svg>'
BLUE_SVG = SVG % b'<rect width="40" height="30" fill="blue"/>'


def test_the_abilities_of_the_wheel_are_what_was_tried() -> None:
    types, formats = abilities()
    assert types == {"avif", "gif", "jpg", "png", "svg", "tif", "webp"}
    assert formats == {"avif", "gif", "jpg", "png", "webp"}


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (jpg(quadrants(80, 60)), Facts("jpg", 80, 60, 3, 1, alpha=False, orientation=1)),
        (oriented(quadrants(80, 60), 6), Facts("jpg", 80, 60, 3, 1, alpha=False, orientation=6)),
        (png(solid(7, 9, (1, 2))), Facts("png", 7, 9, 2, 1, alpha=True, orientation=1)),
        (pages([RED, RED, RED]), Facts("tif", 40, 30, 3, 3, alpha=False, orientation=1)),
        (TINY["avif"], Facts("avif", 8, 8, 3, 1, alpha=False, orientation=1)),
    ],
)
def test_a_probe_tells_the_facts_of_the_header(source: bytes, facts: Facts) -> None:
    assert probe(BytesIO(source), Limits()) == facts


def test_a_probe_of_an_animation_tells_one_frame() -> None:
    facts = probe(BytesIO(animation([RED, (0, 0, 0)], [100, 100], 0)), Limits())
    assert (facts.type, facts.width, facts.height, facts.pages) == ("gif", 40, 30, 2)


# ---- not an image, or none that can be


@pytest.mark.parametrize("source", [b"", b"hello", b"BM" + bytes(100), b"\x1f\x8b" + bytes(50), b"P6\n1 1\n255\n...", b"\x89PN"])
def test_what_is_no_image_is_no_image(source: bytes) -> None:
    with pytest.raises(NotAnImage, match=r"^not an image of a type known here: avif, gif, "):
        rendered(source, "-64x64.jpg")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (TINY["heic"], "heic cannot be decoded here: no HEVC decoder"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "jp2 cannot be decoded here"),
        (b"\xff\x0a" + bytes(50), "jxl cannot be decoded here"),
        (b"%PDF-1.7" + bytes(50), "pdf cannot be decoded here"),
        (BLUE_SVG, "svg is not accepted here (limits.svg)"),
    ],
)
def test_a_known_type_that_cannot_be_read_says_so(source: bytes, text: str) -> None:
    with pytest.raises(CannotRead) as refusal:
        rendered(source, "-64x64.jpg")
    assert str(refusal.value) == text


def test_a_known_format_that_cannot_be_written_says_so() -> None:
    with pytest.raises(CannotWrite, match=r"^jxl cannot be encoded here$"):
        render(BytesIO(png(quadrants())), named("-full.jxl"), Limits())


# ---- svg


def test_an_svg_is_drawn_where_the_setting_allows_it_at_the_size_that_is_asked_for() -> None:
    limits = Limits(svg=True)
    assert at(rendered(BLUE_SVG, "-full.png", limits), 20, 15) == (0, 0, 255, 255)
    circle = SVG % b'<circle cx="20" cy="15" r="10" fill="red"/>'
    large = rendered(circle, "-400x-up.png", limits)
    assert (large.width, large.height) == (400, 300)
    edge = [at(large, x, 150)[3] for x in (98, 99, 101, 102)]
    assert (edge[0], edge[-1]) == (0, 255), "an edge as sharp as this was drawn large, not enlarged"


def test_a_compressed_svg_is_no_image_even_where_svg_is_allowed() -> None:
    with pytest.raises(NotAnImage):
        rendered(gzip.compress(BLUE_SVG), "-full.png", Limits(svg=True))


def test_an_svg_reaches_nothing_outside_itself(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(solid(40, 30, RED)))
    inner = base64.b64encode(png(solid(40, 30, (0, 255, 0)))).decode()
    for link in (str(secret), secret.as_uri(), f"file://localhost{secret}", "http://127.0.0.1:9/x.png"):
        image = SVG % f'<image xlink:href="{link}" width="40" height="30"/>'.encode()
        assert rendered(image, "-full.png", Limits(svg=True))[3].max() == 0, link
        include = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{link}">]>'.encode() + SVG % b"<text>&x;</text>"
        try:
            assert rendered(include, "-full.png", Limits(svg=True))[3].max() == 0, link
        except Damaged:
            continue
    data = SVG % f'<image xlink:href="data:image/png;base64,{inner}" width="40" height="30"/>'.encode()
    assert at(rendered(data, "-full.png", Limits(svg=True)), 20, 15) == (0, 255, 0, 255)


def test_an_svg_is_held_against_the_limits_by_its_own_size() -> None:
    with pytest.raises(TooMuch, match=r"limits\.side allows 20000"):
        rendered(BLUE_SVG.replace(b'width="40"', b'width="30000"', 1), "-64x64.png", Limits(svg=True))


# ---- too much, by the header alone


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (png_header(786_464, 32), "786464 pixels on a side; limits.side allows 20000"),
        (png_header(9_000, 9_000), "81000000 pixels; limits.pixels allows 50000000"),
        (tiff_of_bands(2_048, 1_320, 8_193), "8193 bands; limits.bands allows 5"),
        (tiff_of_bands(64, 64, 6), "6 bands; limits.bands allows 5"),
    ],
)
def test_a_small_file_of_a_huge_picture_is_refused_by_the_limit(source: bytes, text: str) -> None:
    assert len(source) < 25_000
    for ask in (lambda: rendered(source, "-1x1.jpg"), lambda: probe(BytesIO(source), Limits())):
        with pytest.raises(TooMuch) as refusal:
            ask()
        assert str(refusal.value) == text


def test_more_bytes_than_allowed_are_not_looked_at(tmp_path: Path) -> None:
    source = png(quadrants())
    limits = Limits(file_bytes=len(source) - 1)
    large = tmp_path / "large"
    large.write_bytes(source)
    with large.open("rb") as file:
        for opened in (file, BytesIO(source)):
            with pytest.raises(TooMuch, match=rf"^{len(source)} bytes; limits\.file_bytes allows {len(source) - 1}$"):
                render(opened, named("-1x1.jpg"), limits)


def test_a_rendition_that_would_be_too_large_is_refused() -> None:
    line = png(solid(3000, 1, RED))
    with pytest.raises(TooMuch, match=r"pixels in the rendition; limits\.rendition_pixels"):
        rendered(png(solid(1, 100, RED)), "-16383x-up.jpg")
    with pytest.raises(TooMuch, match=r"pixels before cutting; limits\.rendition_pixels"):
        rendered(line, "-400x400-fill-up.jpg")
    assert rendered(line, "-400x400-fill.jpg").width == 1
    with pytest.raises(TooMuch, match=r"^17000 pixels on a side; webp allows 16383$"):
        rendered(png(solid(17_000, 2, RED)), "-full.webp")


@pytest.mark.parametrize(
    "suffix", ["-1x1.png", "-x1.jpg", "-1x-up.png", "-1x1-fill-up.gif", "-500x500-stretch-up.png", "-full-crop_19999x0x1x1.jpg"]
)
def test_the_thinnest_pictures_come_through(suffix: str) -> None:
    for size in ((20_000, 1), (1, 20_000)):
        if "crop" not in suffix or size[0] > 1:
            assert min(rendered(png(solid(*size, RED)), suffix).width, 1) == 1


# ---- damaged

PHOTO = noise(600, 400)


@pytest.mark.parametrize(
    "suffix", ["-64x64.jpg", "-full.png", "-64x64-fill_smart.webp", "-300x-crop_0x100x600x300.jpg", "-64x64-turn_90.jpg"]
)
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("jpg", jpg(PHOTO)),
        ("progressive jpg", bytes(PHOTO.jpegsave_buffer(interlace=True))),
        ("png", png(PHOTO)),
        ("webp", bytes(PHOTO.webpsave_buffer())),
        ("gif", bytes(PHOTO.gifsave_buffer(effort=1))),
        ("tif", bytes(PHOTO.tiffsave_buffer(compression="deflate"))),
        ("avif", bytes(PHOTO.heifsave_buffer(compression="av1", effort=0))),
    ],
)
def test_an_original_that_ends_too_soon_is_damaged_and_never_half_grey(kind: str, source: bytes, suffix: str) -> None:
    half = source[: len(source) * 6 // 10]
    rendered(source, suffix)
    with tempfile.TemporaryFile() as file:
        file.write(half)
        file.flush()
        for opened in (BytesIO(half), file):
            with pytest.raises(Damaged):
                render(opened, named(suffix), Limits())


def test_the_words_of_an_error_are_one_line_without_any_path(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png(PHOTO)[:3000])
    with broken.open("rb") as file, pytest.raises(Damaged) as failure:
        render(file, named("-full.png"), Limits())
    text = str(failure.value)
    assert text.startswith("the image cannot be decoded: ")
    assert "/" not in text
    assert "\n" not in text
    assert len(text) < 200


def test_a_header_alone_is_damaged() -> None:
    for source in (jpg(PHOTO)[:300], png(PHOTO)[:40], b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0", TINY["avif"][:100]):
        with pytest.raises(Damaged):
            rendered(source, "-64x64.jpg")


# ---- open files of every kind


class Piped(BytesIO):
    """A file that can only be read forward."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("not seekable")


def test_an_open_file_is_read_from_its_beginning_wherever_it_stands(tmp_path: Path) -> None:
    source = jpg(quadrants(80, 60))
    (tmp_path / "file").write_bytes(source)
    wanted = render(BytesIO(source), named("-40x.png"), Limits())
    with (tmp_path / "file").open("rb") as buffered, (tmp_path / "file").open("rb", buffering=0) as raw:
        files: list[BinaryIO] = [buffered, raw, BytesIO(source)]
        for file in files:
            for position in (0, 100, len(source)):
                file.seek(position)
                assert render(file, named("-40x.png"), Limits()) == wanted
                assert probe(file, Limits()).width == 80
    assert render(Piped(source), named("-40x.png"), Limits()) == wanted


def test_a_pipe_is_read_to_its_end() -> None:
    source = png(quadrants(80, 60))
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        with os.fdopen(writing, "wb") as other:
            other.write(source)
        assert decoded(render(pipe, named("-40x.png"), Limits())).width == 40


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_descriptor_is_left_open() -> None:
    good, bad = jpg(PHOTO), jpg(PHOTO)[:5000]
    gc.collect()
    before = open_files()
    for content in (good, bad) * 20:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            try:
                render(file, named("-64x64.jpg"), Limits())
            except Damaged:
                continue
    assert open_files() == before


def test_many_threads_render_the_same_bytes() -> None:
    sources = [jpg(quadrants(200 + step, 160)) for step in range(6)]
    suffixes = ["-100x.jpg", "-50x50-fill_smart-flip-turn_90.png", "-60x60-blur_20-pad.webp"]
    work = [(source, suffix) for source in sources for suffix in suffixes] * 3
    alone = [render(BytesIO(source), named(suffix), Limits()) for source, suffix in work]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda job: render(BytesIO(job[0]), named(job[1]), Limits()), work)) == alone


def test_no_other_loader_can_be_reached(tmp_path: Path) -> None:
    """Not by path, not from memory, and not those that nobody named."""
    attempt: Callable[[], object]
    path = tmp_path / "picture.png"
    path.write_bytes(png(quadrants()))
    for attempt in (
        lambda: pyvips.Image.new_from_file(str(path)),
        lambda: pyvips.Image.new_from_buffer(path.read_bytes(), ""),
        lambda: pyvips.Image.matrixload(str(path)),
        lambda: pyvips.Image.rawload(str(path), 1, 1, 1),
        lambda: pyvips.Image.svgload_buffer(BLUE_SVG),
    ):
        with pytest.raises(pyvips.Error):
            attempt()


def test_every_bad_or_odd_picture_is_small_and_listed() -> None:
    listed = {line.split("\t")[0] for line in (IMAGES / "manifest.tsv").read_text().splitlines()[1:]}
    found = {str(path.relative_to(IMAGES)) for path in IMAGES.glob("*/*")}
    assert found == listed
    assert sum((IMAGES / file).stat().st_size for file in found) < 3_500_000


def test_a_process_that_has_only_imported_the_renderer_may_still_fork() -> None:
    """Four children render at once; had the parent run any operation, some would hang for ever."""
    script = """
import os, sys
from io import BytesIO
from imgproxy.grammar import parse
from imgproxy.limits import Limits
from imgproxy.render import render
from imgproxy.vips.tiny import TINY
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if render(BytesIO(TINY["jpg"]), parse("0" * 64 + "-4x4.png"), Limits()) else 1)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)
