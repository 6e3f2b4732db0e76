"""Pictures of other people: each meets the answer that is written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgproxy.errors import CannotRead, Damaged, Error, Impossible, NotAnImage, TooMuch
from imgproxy.limits import Limits
from imgproxy.picture import HEAD, sniff
from imgproxy.render import probe, render
from tests.pictures import IMAGES, decoded, difference, named

LISTED = [line.split("\t")[:2] for line in (IMAGES / "manifest.tsv").read_text().splitlines()[1:]]
LIMITS = Limits(svg=True)
VERDICTS: dict[type[Error], str] = {NotAnImage: "415", CannotRead: "415", Damaged: "422", TooMuch: "422", Impossible: "422"}


def verdict(path: Path, suffix: str) -> str:
    with path.open("rb") as file:
        try:
            content = render(file, named(suffix), LIMITS)
        except Error as error:
            return VERDICTS[type(error)] if str(error) else "an error without words"
    assert sniff(content[:HEAD]) == suffix.rpartition(".")[2]
    assert 1 <= decoded(content).width <= 64
    return "200"


@pytest.mark.parametrize("suffix", ["-64x64.jpg", "-33x44-fill_entropy-turn_90.webp", "-40x40-pad-up.png"])
@pytest.mark.parametrize(("file", "expected"), LISTED)
def test_a_listed_picture_has_the_answer_that_is_expected(file: str, expected: str, suffix: str) -> None:
    found = verdict(IMAGES / file, suffix)
    assert found == expected if len(expected) == 3 else found in ("200", "422")


@pytest.mark.parametrize(("file", "expected"), [row for row in LISTED if row[1] == "200"])
def test_the_full_rendition_has_the_size_of_the_header(file: str, expected: str) -> None:
    with (IMAGES / file).open("rb") as opened:
        facts = probe(opened, LIMITS)
        if facts.width * facts.height > 1_000_000:
            suffix, size = "-64x64-stretch.png", (64, 64)
        else:
            suffix, size = "-full.png", (facts.width, facts.height)
        image = decoded(render(opened, named(suffix), LIMITS))
    assert (image.width, image.height) == size
    assert image.hasalpha() == facts.alpha


@pytest.mark.parametrize("file", ["hopper_orientation_4.webp", "hopper_orientation_6.jpg", "hopper_orientation_7.jpg"])
def test_a_face_is_upright_whatever_its_orientation(file: str) -> None:
    upright = next((IMAGES / "odd").glob("*__hopper.gif"))
    turned = next((IMAGES / "odd").glob(f"*__{file}"))
    pictures = []
    for path in (upright, turned):
        with path.open("rb") as opened:
            pictures.append(decoded(render(opened, named("-32x32.png"), LIMITS))[0:3])
    assert difference(*pictures) < 25
