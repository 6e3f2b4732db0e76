"""The versioned interface: the routes that programs of an older make know, each of them a few words about what is there anyway.

images.py    pictures in, found, shown, and taken away
presets.py   the renditions of a preset: of how many images, which are not there, and have them made
fetching.py  pictures from elsewhere, and what became of them

`thumbnail` and `full-size` are presets of the settings. No route keeps a state of its own: what is missing is what a listing does not have.
"""

from __future__ import annotations

from imgproxy.web.v1 import fetching, images, presets

PAGES = (images, presets, fetching)
"""What the table is made of: modules with `operations`."""
