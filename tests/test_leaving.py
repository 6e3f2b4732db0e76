"""What is deleted leaves every place where it was kept, and takes nothing along that came later."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from imgproxy import wiring
from imgproxy.grammar import parse
from imgproxy.wiring import Desk
from tests.plain import png
from tests.serving import environment
from tests.stores.test_redis import Server
from tests.stores.test_redis import start as start
from tests.test_purges import Cache, until
from tests.test_purges import cache as cache

PICTURE = png(20, 20)


def opened(data: Path, **settings: str) -> Desk:
    env = environment(data, **settings)
    return wiring.furnish(wiring.settings_of(env), env)


def kept(desk: Desk) -> str:
    """An image of which there is a record, committed."""
    session = desk.words.sessions.open()
    done = desk.uploads.keep(io.BytesIO(PICTURE), session, {})
    assert desk.words.commits.commit(session.id) is not None
    return done.added.name.hash


def deleted(desk: Desk, hash: str) -> None:
    session = desk.words.sessions.open()
    desk.words.sessions.delete(session, hash)
    assert desk.words.commits.commit(session.id) is not None


def test_what_a_hung_redis_could_not_forget_it_forgets_as_soon_as_it_can(
    tmp_path: Path, start: Callable[..., Server], cache: Cache
) -> None:
    redis, purge = start(), f"PURGE http://127.0.0.1:{cache.port}/{{hash}}"
    with closing(opened(tmp_path / "var", IMG_CACHE=f"disk://,{redis.url}", IMG_PURGE=purge)) as desk:
        hash = kept(desk)
        name = parse(f"{hash}-8x8.png")
        desk.house.images.open(name).file.close()
        assert list(redis.client().scan_iter(match=f"*{hash}*"))
        redis.signal(signal.SIGSTOP)
        deleted(desk, hash)
        assert all("not removed yet" in desk.words.farewell.begin() for _ in range(2))
        assert (desk.words.farewell.waiting(), desk.house.base.head(hash)) == (1, None)
        until(lambda: desk.purges.waiting() == 0)
        assert len(cache.heard) == 1  # they need not wait for Redis
        redis.signal(signal.SIGCONT)
        until(lambda: desk.words.farewell.begin() == "")
        assert desk.words.farewell.waiting() == 0
        until(lambda: desk.purges.waiting() == 0)
        assert len(cache.heard) == 2
        assert not list(redis.client().scan_iter(match=f"*{hash}*"))


def test_what_comes_to_one_node_outlives_the_deletion_that_another_has_just_committed(tmp_path: Path) -> None:
    store = f"fs://{tmp_path / 'store'}"
    with (
        closing(opened(tmp_path / "one", IMG_STORE=store)) as one,
        closing(opened(tmp_path / "two", IMG_STORE=store)) as two,
        ThreadPoolExecutor(1) as beside,
    ):
        hash = kept(one)
        deleted(one, hash)
        two.words.follower.poll()
        session = two.words.sessions.open()
        coming = beside.submit(two.uploads.keep, io.BytesIO(PICTURE), session, {})
        time.sleep(0.3)
        assert not coming.done()
        assert one.words.farewell.say() == 1
        assert coming.result(30).added.new
        one.step_down()
        assert two.words.commits.commit(session.id) is not None
        one.words.follower.poll()
        assert one.words.farewell.begin() == ""
        assert one.house.base.head(hash) is not None


def test_a_redis_that_is_away_keeps_no_other_node_from_following_and_writing(tmp_path: Path, start: Callable[..., Server]) -> None:
    redis = start()
    places = {"IMG_STORE": f"fs://{tmp_path / 'store'}", "IMG_CACHE": f"disk://,{redis.url}"}
    with closing(opened(tmp_path / "one", **places)) as one, closing(opened(tmp_path / "two", **places)) as two:
        hash = kept(one)
        two.words.follower.poll()
        redis.stop()
        deleted(one, hash)
        assert one.words.farewell.begin() != ""
        told = two.words.follower.poll()
        assert (told.applied, told.level, told.let_go) == (1, True, 0)
        assert "Redis" in told.hindered
        one.step_down()
        assert kept(two) == hash
        assert two.house.base.head(hash) is not None
        redis.start()
        until(lambda: one.words.follower.poll().hindered == "")
        until(lambda: two.words.farewell.begin() == "")
        assert (one.words.farewell.waiting(), two.words.farewell.waiting()) == (0, 0)
        assert two.house.base.head(hash) is not None
