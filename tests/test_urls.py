"""URLs of names, and the HTML that offers several of them."""

from __future__ import annotations

import doctest
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgproxy import urls as module
from imgproxy.errors import BadName, Missing
from imgproxy.grammar import Base, Derived, parse
from imgproxy.security import Keyring
from imgproxy.urls import Urls
from tests.naming import HASH, lawful, well_spelled

KEYRING = Keyring([b"a key of more than enough bytes"])
BOX = Derived(HASH, "jpg", width=1200, height=630, fill="centre")
WIDE = Derived(HASH, "jpg", width=320)
FITTED = Derived(HASH, "jpg", width=1024, height=512)


class Elements(HTMLParser):
    """What a browser makes of a text: its elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        raise AssertionError(f"text between the elements: {data!r}")


# ---- one URL


@pytest.mark.parametrize(
    ("prefix", "before"),
    [
        ("/", "/"),
        ("", "/"),
        ("/img", "/img/"),
        ("/img/", "/img/"),
        ("/a/b-c_d.e~f/", "/a/b-c_d.e~f/"),
        ("https://img.example.org", "https://img.example.org/"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("https://cdn.example.org/x/y", "https://cdn.example.org/x/y/"),
        ("//cdn.example.org/", "//cdn.example.org/"),
    ],
)
def test_a_url_is_the_prefix_and_the_name(prefix: str, before: str) -> None:
    assert Urls(prefix).url(WIDE) == f"{before}{HASH}-320x.jpg"
    assert Urls(prefix).url(Base(HASH, "tif")) == f"{before}{HASH}.tif"
    assert Urls(prefix, KEYRING).url(WIDE) == before.removesuffix("/") + KEYRING.sign(str(WIDE))


@pytest.mark.parametrize("prefix", ["//", "/a//b/", "/a,b/", "/a b/", '/"/', "/a?b/", "/a#b/", "/%2D/", "/\n", "/\\", "/é/"])
@pytest.mark.parametrize("host", ["", "https://img.example.org"])
def test_a_prefix_that_a_page_would_misread_is_refused(host: str, prefix: str) -> None:
    with pytest.raises(ValueError, match="a prefix is a plain path or a URL"):
        Urls(host + prefix)


@pytest.mark.parametrize(
    "host", ["img", "https:", "https://", "ftp://host", "javascript:", "https://u:p@host", "https://a,b", "https://a b"]
)
def test_a_host_that_a_page_would_misread_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="a prefix is a plain path or a URL"):
        Urls(host + "/")


def test_without_a_prefix_a_url_begins_at_the_root() -> None:
    assert Urls().url(WIDE) == f"/{HASH}-320x.jpg"


def test_with_a_keyring_every_url_is_signed_and_opens() -> None:
    urls = Urls("https://img.example.org/", KEYRING, {"thumb": "-256x256-fill.webp"})
    signed = [urls.url(WIDE), urls.url(Base(HASH, "jpg")), urls.preset(HASH, "thumb"), *urls.srcset(WIDE, densities=[1, 2]).split(" ")[::2]]
    names = [KEYRING.opened(url.removeprefix("https://img.example.org"), now=0) for url in signed]
    assert [name.removeprefix(HASH) for name, expires in names if expires is None] == [
        "-320x.jpg",
        ".jpg",
        "-256x256-fill.webp",
        "-320x.jpg",
        "-640x.jpg",
    ]


def test_a_signed_url_may_expire_and_a_plain_one_cannot() -> None:
    assert KEYRING.opened(Urls(keyring=KEYRING).url(WIDE, expires=1_900_000_000), now=0) == (str(WIDE), 1_900_000_000)
    with pytest.raises(ValueError, match="only a signed URL can expire"):
        Urls().url(WIDE, expires=1_900_000_000)


# ---- presets


def test_a_preset_is_a_suffix_by_name() -> None:
    urls = Urls("/img/", presets={"thumb": "-256x256-fill.webp", "wide": "-1600x.avif"})
    assert urls.preset(HASH, "thumb") == f"/img/{HASH}-256x256-fill.webp"
    assert urls.preset(HASH, "wide") == f"/img/{HASH}-1600x.avif"


def test_an_unknown_preset_is_missing_and_a_bad_hash_no_name() -> None:
    with pytest.raises(Missing):
        Urls(presets={"thumb": "-9x.jpg"}).preset(HASH, "thumbs")
    with pytest.raises(BadName):
        Urls(presets={"thumb": "-9x.jpg"}).preset(HASH.upper(), "thumb")


@pytest.mark.parametrize("suffix", ["256x256.webp", ".jpg", "-256x256", "-9x-q_80.jpg", ""])
def test_a_preset_that_is_no_suffix_is_refused_at_once(suffix: str) -> None:
    with pytest.raises(BadName):
        Urls(presets={"thumb": suffix})


# ---- srcset


@pytest.mark.parametrize(
    ("name", "suffixes"),
    [
        (WIDE, "-200x.jpg 200w, -400x.jpg 400w"),
        (Derived(HASH, "webp", q=60), "-200x-q_60.webp 200w, -400x-q_60.webp 400w"),
        (BOX, "-200x105-fill.jpg 200w, -400x210-fill.jpg 400w"),
        (replace(BOX, fill=None, pad=True), "-200x105-pad.jpg 200w, -400x210-pad.jpg 400w"),
        (replace(BOX, fill=None, stretch=True), "-200x105-stretch.jpg 200w, -400x210-stretch.jpg 400w"),
        (Derived(HASH, "jpg", width=900, height=1, fill="n"), "-200x1-fill_n.jpg 200w, -400x1-fill_n.jpg 400w"),
    ],
)
def test_a_srcset_of_widths_keeps_the_aspect_ratio(name: Derived, suffixes: str) -> None:
    assert Urls("/i/").srcset(name, widths=[200, 400]) == suffixes.replace("-2", f"/i/{HASH}-2").replace("-4", f"/i/{HASH}-4")


@pytest.mark.parametrize("name", [FITTED, Derived(HASH, "jpg", height=480)])
def test_a_size_that_does_not_decide_the_width_has_no_srcset_of_widths(name: Derived) -> None:
    with pytest.raises(ValueError, match="does not: 320x, full, or a box to fill"):
        Urls().srcset(name, widths=[200])


def test_a_srcset_of_densities_multiplies_every_side() -> None:
    def suffixes(name: Derived) -> str:
        return Urls().srcset(name, densities=[1, 1.5, 2]).replace(f"/{HASH}", "")

    assert suffixes(WIDE) == "-320x.jpg 1x, -480x.jpg 1.5x, -640x.jpg 2x"
    assert suffixes(FITTED) == "-1024x512.jpg 1x, -1536x768.jpg 1.5x, -2048x1024.jpg 2x"
    assert suffixes(Derived(HASH, "png", height=33)) == "-x33.png 1x, -x50.png 1.5x, -x66.png 2x"


def test_a_srcset_has_either_widths_or_densities() -> None:
    for widths, densities in (((), ()), ((200,), (2,))):
        with pytest.raises(ValueError, match="either widths or densities"):
            Urls().srcset(WIDE, widths=widths, densities=densities)


def test_what_would_be_no_name_is_in_no_srcset() -> None:
    with pytest.raises(BadName, match="expected a width"):
        Urls().srcset(WIDE, widths=[320, 16384])
    with pytest.raises(BadName, match="expected a width"):
        Urls().srcset(WIDE, densities=[0])
    with pytest.raises(ValueError, match="nothing is larger than full"):
        Urls().srcset(Derived(HASH, "jpg"), densities=[2])


@settings(deadline=None)
@given(well_spelled().filter(lawful).map(parse), st.lists(st.integers(1, 16383), min_size=1, max_size=4), st.booleans())
def test_every_candidate_of_a_srcset_is_a_name_so_wide(name: Base | Derived, widths: list[int], signed: bool) -> None:
    assume(isinstance(name, Derived))
    assert isinstance(name, Derived)
    assume(
        name.height is None or (name.width and (name.fill or name.pad or name.stretch) and max(widths) * name.height / name.width <= 16383)
    )
    candidates = [candidate.split(" ") for candidate in Urls("/i", KEYRING if signed else None).srcset(name, widths=widths).split(", ")]
    assert [width for _, width in candidates] == [f"{width}w" for width in widths]
    for (url, _), width in zip(candidates, widths, strict=True):
        path = url.removeprefix("/i")
        found = parse(KEYRING.opened(path, now=0)[0] if signed else path.removeprefix("/"))
        assert isinstance(found, Derived)
        assert found.width == width
        assert replace(found, width=name.width, height=name.height) == name


# ---- picture


def test_a_picture_offers_the_best_format_first_and_the_name_itself_last() -> None:
    assert Urls("/i/").picture(WIDE, "A mill") == (
        "<picture>"
        f'<source type="image/avif" srcset="/i/{HASH}-320x.avif">'
        f'<source type="image/webp" srcset="/i/{HASH}-320x.webp">'
        f'<img src="/i/{HASH}-320x.jpg" alt="A mill">'
        "</picture>"
    )


def test_a_picture_in_several_widths_says_how_wide_it_is_drawn() -> None:
    text = Urls("/i/").picture(BOX, "A mill", formats=["webp"], widths=[600, 1200], sizes="(max-width: 40em) 100vw, 600px")
    several = f"/i/{HASH}-600x315-fill.{{0}} 600w, /i/{HASH}-1200x630-fill.{{0}} 1200w"
    sizes = "(max-width: 40em) 100vw, 600px"
    assert Elements(text).found == [
        ("picture", {}),
        ("source", {"type": "image/webp", "srcset": several.format("webp"), "sizes": sizes}),
        (
            "img",
            {"src": f"/i/{BOX}", "srcset": several.format("jpg"), "sizes": sizes, "width": "1200", "height": "630", "alt": "A mill"},
        ),
    ]


def test_only_a_box_that_is_filled_says_its_width_and_height() -> None:
    for name, known in (
        (BOX, True),
        (replace(BOX, fill=None, pad=True), True),
        (FITTED, False),
        (WIDE, False),
        (Derived(HASH, "jpg"), False),
    ):
        _, attributes = Elements(Urls().picture(name, "")).found[-1]
        assert ("width" in attributes, "height" in attributes) == (known, known)


def test_a_quality_stays_with_its_own_format() -> None:
    text = Urls().picture(replace(WIDE, q=50), "", formats=["avif", "jpg", "png"])
    urls = [attributes.get("srcset", attributes.get("src")) for _, attributes in Elements(text).found[1:]]
    assert urls == [f"/{HASH}-320x.avif", f"/{HASH}-320x.png", f"/{HASH}-320x-q_50.jpg"]


def test_a_jpeg_is_offered_by_its_media_type() -> None:
    text = Urls().picture(Derived(HASH, "png", width=9), "", formats=["jpg"])
    assert Elements(text).found[1] == ("source", {"type": "image/jpeg", "srcset": f"/{HASH}-9x.jpg"})


def test_a_format_that_cannot_do_what_the_name_says_is_refused() -> None:
    with pytest.raises(BadName, match="avif is never animated here"):
        Urls().picture(Derived(HASH, "gif", width=9, anim=True), "")


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_whatever_is_said_of_a_picture_stays_in_its_attribute(alt: str, sizes: str, title: str) -> None:
    # a parser of HTML reads these otherwise than they are written, wherever they stand
    alt, sizes, title = (text.replace("\0", "").replace("\r", "") for text in (alt, sizes, title))
    text = Urls().picture(BOX, alt, widths=[9], sizes=sizes, attributes={"title": title})
    _, avif, webp, image = (attributes for _, attributes in Elements(text).found)
    assert (image["alt"], image["title"]) == (alt, title)
    assert {image["sizes"], avif["sizes"], webp["sizes"]} == {sizes}


def test_what_is_said_of_a_picture_is_escaped() -> None:
    text = Urls().picture(WIDE, """<b>"Tom" & 'Jerry'</b>""", formats=[], attributes={"class": '"><script>'})
    assert text == (
        f'<picture><img src="/{HASH}-320x.jpg" alt="&lt;b&gt;&quot;Tom&quot; &amp; &#x27;Jerry&#x27;&lt;/b&gt;" '
        'class="&quot;&gt;&lt;script&gt;"></picture>'
    )


def test_an_image_may_have_further_attributes() -> None:
    text = Urls().picture(WIDE, "", attributes={"class": "hero", "loading": "lazy", "data-x-1": ""})
    assert Elements(text).found[-1] == ("img", {"src": f"/{WIDE}", "alt": "", "class": "hero", "loading": "lazy", "data-x-1": ""})
    assert all("class" not in attributes for _, attributes in Elements(text).found[:-1])


@pytest.mark.parametrize("attribute", ["src", "srcset", "alt", "sizes", "width", "height", "", "a b", "Class", "x>", 'x"', "class\n", "1a"])
def test_no_attribute_takes_the_place_of_another_or_breaks_out(attribute: str) -> None:
    with pytest.raises(ValueError, match="not an attribute that may be set here"):
        Urls().picture(WIDE, "", attributes={attribute: "x"})


# ---- the module


def test_the_examples_of_the_module_are_true() -> None:
    found = doctest.testmod(module)
    assert (found.failed, found.attempted) == (0, 5)


def test_a_template_that_builds_urls_loads_nothing_foreign() -> None:
    code = (
        "import sys; before = set(sys.modules); import imgproxy.urls; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "['imgproxy']\n"
