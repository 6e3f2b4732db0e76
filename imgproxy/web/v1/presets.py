"""The renditions by a preset, of all committed images: which are not there, and have them made."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import msgspec

from imgproxy.grammar import parse
from imgproxy.jobs.orders import Derive
from imgproxy.meta.query import Query
from imgproxy.web.admin.images import Most
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.tasks import TaskShown, shown_task
from imgproxy.web.operation import Answer, Asked, Operation, Reply
from imgproxy.web.v1.images import FULL_SIZE, THUMBNAIL

PRESETS = {"thumbnails": THUMBNAIL, "full-size": FULL_SIZE}
"""What the routes call the presets."""

_PARTS = {"which": "|".join(PRESETS)}


class After(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many, and after which id."""

    most: Most = 1_000
    after: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


class Calling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to say that it is done."""

    callback: str = ""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A preset, what it does to an image, and of how many images there could be such renditions."""

    preset: str
    suffix: str
    images: int


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of images whose rendition is not there, and the one to go on after (empty: nowhere)."""

    ids: list[str]
    after: str = ""


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="v1_preset",
            method="GET",
            path="/v1/operations/{which}",
            scope=None,
            what="What thumbnails or full-size renditions are here, and of how many images there could be one.",
            call=lambda asked: _preset(opening.get(), asked.path["which"]),
            parts=_PARTS,
            answers={200: Answer("The preset.", Preset)},
            writes=False,
        ),
        Operation(
            name="v1_missing",
            method="GET",
            path="/v1/operations/{which}/missing",
            scope="write",
            what="The images whose thumbnail or full-size rendition is not there, in the order of their ids.",
            call=lambda asked: _missing(opening.get(), asked),
            parts=_PARTS,
            query=After,
            answers={200: Answer("Some of them.", Lacking)},
            writes=False,
        ),
        Operation(
            name="v1_generate",
            method="POST",
            path="/v1/operations/{which}/generate",
            scope="write",
            what="Have all thumbnails or full-size renditions made that are not there.",
            call=lambda asked: _generate(opening.get(), asked),
            parts=_PARTS,
            body=Calling,
            optional=True,
            answers={202: Answer("The task that makes them.", TaskShown, headers={"Location": "Where the task is."})},
        ),
    )


def _preset(office: Office, which: str) -> Reply:
    preset = PRESETS[which]
    return Reply(Preset(preset=preset, suffix=office.presets[preset], images=office.words.search.page(Query(), most=1).total))


def _missing(office: Office, asked: Asked[Any]) -> Reply:
    suffix, most = office.presets[PRESETS[asked.path["which"]]], asked.query.most
    names = office.jobs.missing((suffix,), (), {}, f"{asked.query.after}{suffix}" if asked.query.after else "")
    ids = [parse(name).hash for name in islice(names, most)]
    return Reply(Lacking(ids=ids, after=ids[-1] if len(ids) == most else ""))


def _generate(office: Office, asked: Asked[Calling]) -> Reply:
    order = Derive(suffixes=(office.presets[PRESETS[asked.path["which"]]],), missing=True)
    task = office.jobs.submit(order, callback=asked.body.callback, author=asked.author)
    return Reply(shown_task(task), status=202, headers={"Location": f"/v1/tasks/{task.id}"}, audit={"task": task.id})
