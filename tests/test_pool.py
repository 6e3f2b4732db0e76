"""The pool, with real processes: what it renders, what it survives, what it leaves behind."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from imgproxy import errors, render
from imgproxy.errors import Busy, Damaged, RendererLost
from imgproxy.grammar import Derived
from imgproxy.limits import Limits
from imgproxy.picture import Mark, Stamp
from imgproxy.pool import Pool, PoolPlan, answers, lost
from imgproxy.pool.keeper import LINGER
from tests import pooling
from tests.plain import png, written
from tests.pooling import LIMITS, PATIENCE, PICTURE, PLAN, SLOW, SMALL, Attempt

Opener = Callable[..., Pool]

HASH = "5" * 64
ONE = replace(PLAN, renderers=1)
HASTY = replace(LIMITS, seconds=0.5)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """The directory of a pool; nothing that ran there is left afterwards."""
    directory = tmp_path / "run"
    yield directory
    for pid in pooling.keepers(directory):
        os.kill(pid, signal.SIGKILL)
    pooling.until(lambda: not pooling.keepers(directory))


@pytest.fixture
def opened(run: Path) -> Iterator[Opener]:
    """Makes pools in that directory, and closes them."""
    pools: list[Pool] = []

    def make(plan: PoolPlan = PLAN, limits: Limits = LIMITS) -> Pool:
        pools.append(Pool(run, limits, plan))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One pool for the tests that harm nobody."""
    directory = tmp_path_factory.mktemp("shared")
    pool = Pool(directory, LIMITS, PLAN)
    yield pool
    pool.close()
    for pid in pooling.keepers(directory):
        os.kill(pid, signal.SIGKILL)


def in_process(name: Derived, picture: bytes = PICTURE, stamp: Stamp | None = None) -> bytes:
    return render.render(io.BytesIO(picture), name, LIMITS, stamp)


def changed(run: Path, renderers: list[int]) -> bool:
    return pooling.renderers(run) != renderers


class Stream(io.BytesIO):
    """Bytes that come once, in small parts."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation

    def read(self, size: int | None = -1) -> bytes:
        return super().read(999 if size is None or size < 0 else min(size, 999))


# ---- what it renders


@pytest.mark.parametrize(
    "name",
    [
        SMALL,
        Derived(HASH, "webp", width=50, height=50, fill="centre"),
        Derived(HASH, "png", blur=30, turn=90),
        Derived(HASH, "avif", width=64),
        Derived(HASH, "gif"),
    ],
    ids=lambda name: name.suffix,
)
def test_a_renderer_makes_the_same_bytes_as_this_process(shared: Pool, name: Derived) -> None:
    assert shared.render(io.BytesIO(PICTURE), name, None, PATIENCE) == in_process(name)


def test_a_stamp_travels_with_its_picture(shared: Pool) -> None:
    name = replace(SMALL, mark="logo")
    stamp = Stamp(Mark("nw", size=300, opacity=50), io.BytesIO(png(40, 40, seed=1)))
    stamped = shared.render(io.BytesIO(PICTURE), name, stamp, PATIENCE)
    assert stamped == in_process(name, stamp=stamp)
    assert stamped != in_process(SMALL)


def test_a_file_a_stream_and_a_file_without_a_name_are_read_whole(shared: Pool, tmp_path: Path) -> None:
    path = written(tmp_path / "picture", PICTURE)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        file.seek(77)
        path.unlink()
        sources: list[BinaryIO] = [file, raw, Stream(PICTURE), io.BytesIO(PICTURE)]
        bodies = [shared.render(source, SMALL, None, PATIENCE) for source in sources]
        assert file.tell() == 77
    assert set(bodies) == {in_process(SMALL)}


def test_a_pipe_is_read_whole(shared: Pool) -> None:
    ears, mouth = os.pipe()
    os.write(mouth, PICTURE)
    os.close(mouth)
    with os.fdopen(ears, "rb") as source:
        assert shared.render(source, SMALL, None, PATIENCE) == in_process(SMALL)


def test_a_file_that_may_not_be_opened_again_is_copied(tmp_path: Path) -> None:
    path = written(tmp_path / "picture", PICTURE)
    code = (
        "import os, sys; from imgproxy.pool.sources import own_descriptor; file = open(sys.argv[1], 'rb'); os.chmod(sys.argv[1], 0)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: os.close(os.open(f'/proc/self/fd/{file.fileno()}', os.O_RDONLY)); sys.exit('it may be opened')\n"
        "except PermissionError: sys.stdout.buffer.write(os.pread(own_descriptor(file, 10**6), 10**6, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=pooling.ROOT, capture_output=True, check=True)
    assert done.stdout == PICTURE


def test_many_jobs_on_one_open_file_do_not_disturb_each_other(shared: Pool, tmp_path: Path) -> None:
    names = [Derived(HASH, "jpg", width=width) for width in range(20, 60)]
    with written(tmp_path / "picture", png(900, 700)).open("rb") as file, ThreadPoolExecutor(6) as threads:
        bodies = list(threads.map(lambda name: shared.render(file, name, None, PATIENCE), names))
        assert file.tell() == 0
    assert bodies == [in_process(name, png(900, 700)) for name in names]


def test_facts_and_abilities_are_those_of_this_process(shared: Pool) -> None:
    assert shared.probe(io.BytesIO(PICTURE), PATIENCE) == render.probe(io.BytesIO(PICTURE), LIMITS)
    assert shared.abilities(PATIENCE) == render.abilities()


@pytest.mark.parametrize(
    ("picture", "name", "error"),
    [
        (b"These are words.", SMALL, errors.NotAnImage),
        (b"", SMALL, errors.NotAnImage),
        (PICTURE[:-400], SMALL, errors.Damaged),
        (png(20_001, 1), SMALL, errors.TooMuch),
        (PICTURE, replace(SMALL, crop=(290, 0, 20, 20)), errors.Impossible),
        (PICTURE, replace(SMALL, mark="logo"), errors.Missing),
        (PICTURE, Derived(HASH, "jxl"), errors.CannotWrite),
        (b"%PDF-1.7\n" + bytes(99), SMALL, errors.CannotRead),
    ],
    ids=["words", "nothing", "cut", "wide", "crop", "mark", "jxl", "pdf"],
)
def test_a_refusal_comes_back_as_what_it_is(shared: Pool, picture: bytes, name: Derived, error: type[errors.Error]) -> None:
    with pytest.raises(error) as here:
        in_process(name, picture)
    with pytest.raises(error) as there:
        shared.render(io.BytesIO(picture), name, None, PATIENCE)
    assert type(there.value) is error
    assert str(there.value) == str(here.value)


def test_a_stream_larger_than_a_file_may_be_is_refused_and_not_read_to_its_end(opened: Opener) -> None:
    pool = opened(ONE, replace(LIMITS, file_bytes=5000))
    stream = Stream(PICTURE + bytes(100_000))
    with pytest.raises(errors.TooMuch):
        pool.render(stream, SMALL, None, PATIENCE)
    assert len(stream.read(999)) == 999


def test_a_result_larger_than_any_buffer_arrives_whole(shared: Pool) -> None:
    picture = pooling.noise(900, 600)
    body = shared.render(io.BytesIO(picture), Derived(HASH, "png"), None, PATIENCE)
    assert body == in_process(Derived(HASH, "png"), picture)
    assert len(body) > 2**20


# ---- who is there


def test_a_directory_deeper_than_a_socket_name_may_be_is_no_matter(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    pool = Pool(directory, LIMITS, ONE)
    try:
        assert pooling.small(pool) == in_process(SMALL)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}
    finally:
        pool.close()
        os.kill(pooling.keepers(directory)[0], signal.SIGKILL)


def test_a_job_whose_renderer_went_with_its_keeper_is_done_by_another(run: Path, opened: Opener) -> None:
    pool = opened(PLAN)
    pooling.ready(pool, run, 2)
    attempt = pooling.Attempt(pooling.slow, pool)
    pooling.busy(run)
    (keeper,) = pooling.keepers(run)
    os.kill(keeper, signal.SIGKILL)
    made = attempt.result()
    assert isinstance(made, bytes), made
    assert b"ftypavif" in made[:16]
    assert pooling.keepers(run) != [keeper]


def test_twenty_processes_that_start_at_once_share_one_keeper(run: Path) -> None:
    clients = [pooling.client(run, "wait") for _ in range(20)]
    try:
        assert {pooling.line(client) for client in clients} == {"waiting"}
        for client in clients:
            pooling.go(client)
        said = {pooling.line(client) for client in clients}
        assert said == {hashlib.sha256(in_process(SMALL)).hexdigest()}
        assert len(pooling.keepers(run)) == 1
        assert len(pooling.renderers(run)) == PLAN.renderers
    finally:
        statuses = {pooling.end(client) for client in clients}
    assert statuses == {0}


def test_the_keeper_leaves_after_its_last_client(run: Path, opened: Opener) -> None:
    first, second = opened(ONE), opened(ONE)
    pooling.small(first)
    second.check(PATIENCE)
    (keeper,) = pooling.keepers(run)
    first.close()
    time.sleep(LINGER + 1.5)
    assert pooling.keepers(run) == [keeper]
    renderers = pooling.renderers(run)
    second.close()
    pooling.until(lambda: not pooling.keepers(run))
    pooling.until(lambda: not any(map(pooling.state, renderers)))
    assert sorted(path.suffix for path in run.iterdir()) == [".lock", ".log"]
    assert pooling.small(first) == in_process(SMALL)


def test_a_keeper_that_is_asked_to_leave_stays_for_its_clients(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    picture = io.BytesIO(pooling.noise(1500, 1000))
    job = Attempt(lambda pool: pool.render(picture, Derived(HASH, "avif"), None, PATIENCE), pool)
    for pid in [pooling.busy(run), *pooling.keepers(run)]:
        os.kill(pid, signal.SIGTERM)
    assert isinstance(job.result(), bytes)
    pool.close()
    pooling.until(lambda: not pooling.keepers(run))


def test_another_plan_or_other_limits_are_another_pool(run: Path, opened: Opener) -> None:
    for pool in (opened(ONE), opened(replace(ONE, queue=5)), opened(ONE, HASTY), opened(ONE)):
        pool.check(PATIENCE)
    assert len(pooling.keepers(run)) == 3


def test_a_process_that_forks_after_use_shares_the_pool_with_its_children(run: Path) -> None:
    parent = pooling.client(run, "fork")
    try:
        said = [pooling.line(parent) for _ in range(5)]
        assert said == [hashlib.sha256(in_process(SMALL)).hexdigest()] * 5
        assert len(pooling.keepers(run)) == 1
        # All of them have let go, and none keeps what was its parent's.
        pooling.until(lambda: not pooling.keepers(run))
        assert parent.poll() is None
    finally:
        status = pooling.end(parent)
    assert status == 0


def test_nothing_secret_reaches_the_keeper(run: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMG_ADMIN_TOKEN", "OS_PASSWORD", "ST_KEY", "AWS_SECRET_ACCESS_KEY", "ANYTHING"):
        monkeypatch.setenv(name, "very-secret")
    opened(ONE).check(PATIENCE)
    (keeper,) = pooling.keepers(run)
    environment = Path(f"/proc/{keeper}/environ").read_bytes()
    assert b"very-secret" not in environment
    assert b"VIPS_CONCURRENCY=1" in environment
    assert {Path(f"/proc/{keeper}/fd/{number}").readlink() for number in (0, 1)} == {Path("/dev/null")}


def test_a_renderer_is_jailed(run: Path, opened: Opener) -> None:
    plan = replace(ONE, memory=900 * 2**20)
    (renderer,) = pooling.ready(opened(plan), run, 1)
    most = {line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{renderer}/limits").read_text().splitlines()}
    assert most["Max address space"] == [str(plan.memory)] * 2
    assert most["Max file size"] == ["0", "0"]
    assert most["Max open files"] == ["32", "32"]
    assert most["Max core file size"] == ["0", "0"]
    assert "NoNewPrivs:\t1\n" in Path(f"/proc/{renderer}/status").read_text()
    assert int(Path(f"/proc/{renderer}/oom_score_adj").read_text()) > 0


# ---- what it survives


def test_a_renderer_killed_at_work_costs_exactly_one_request(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    victim = Attempt(pooling.slow, pool)
    renderer = pooling.busy(run)
    others = [Attempt(pooling.small, pool) for _ in range(5)]
    os.kill(renderer, signal.SIGKILL)
    assert isinstance(victim.result(), RendererLost)
    assert [other.result() for other in others] == [in_process(SMALL)] * 5
    assert renderer not in pooling.renderers(run)


def test_a_renderer_killed_at_rest_costs_nothing(run: Path, opened: Opener) -> None:
    pool = opened()
    for renderer in pooling.ready(pool, run, 2):
        os.kill(renderer, signal.SIGKILL)
    assert pooling.small(pool) == in_process(SMALL)
    assert not (run / "lost").exists()


def test_a_render_that_overruns_its_deadline_is_killed(run: Path, opened: Opener) -> None:
    pool = opened(ONE, HASTY)
    (renderer,) = pooling.ready(pool, run, 1)
    with pytest.raises(RendererLost, match=r"longer than 0\.5 seconds"):
        pooling.slow(pool)
    assert pooling.small(pool) == in_process(SMALL)
    assert renderer not in pooling.renderers(run)


def test_a_renderer_that_stands_still_is_killed_at_the_deadline(run: Path, opened: Opener) -> None:
    pool = opened(ONE, replace(LIMITS, seconds=1.5))
    job = Attempt(pooling.slow, pool)
    renderer = pooling.stopped(pooling.busy(run))
    assert isinstance(job.result(), RendererLost)
    assert pooling.small(pool) == in_process(SMALL)
    assert pooling.state(renderer) == ""


def test_a_renderer_whose_client_died_ends_itself(run: Path, opened: Opener) -> None:
    pool = opened(PLAN, replace(LIMITS, seconds=1.0))
    pooling.ready(pool, run, 2)
    client = pooling.client(run, "slow", "1.0")
    renderer = pooling.busy(run)
    client.kill()
    pooling.end(client)
    pooling.until(lambda: f"renderer {renderer} ended with {-signal.SIGALRM}" in (run / "pool.log").read_text())
    assert pooling.small(pool) == in_process(SMALL)


def test_a_renderer_takes_no_other_job_before_its_client_has_hung_up(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    (renderer,) = pooling.ready(pool, run, 1)
    end = time.monotonic() + PATIENCE
    with pool._company.connect(end) as wire:
        wire.say({"verb": "abilities"})
        started, (descriptor,) = wire.hear(end)
        answer, _ = wire.hear(end)
        assert started == {"started": renderer}
        assert answers.read_abilities(answer) == render.abilities()
        with pytest.raises(Busy):
            pool.render(io.BytesIO(PICTURE), SMALL, None, 0.3)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    assert pooling.small(pool) == in_process(SMALL)
    assert renderer not in pooling.renderers(run)


def test_a_renderer_that_fails_in_an_unforeseen_way_is_replaced(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    (renderer,) = pooling.ready(pool, run, 1)
    with pytest.raises(RendererLost, match="unforeseen"):
        pool._ask({"verb": "dance"}, [], PATIENCE)
    assert pooling.small(pool) == in_process(SMALL)
    assert renderer not in pooling.renderers(run)
    log = (run / "pool.log").read_text()
    assert f"renderer {renderer} ended with 1" in log
    assert "KeyError: 'dance'" in log


def test_a_client_that_says_nothing_or_nonsense_keeps_no_renderer(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    renderers = pooling.ready(pool, run, 1)
    for nonsense in (b"\0\0\0\x02[]", b"\xff\xff\xff\xff", b"\0\0\0\x05{", b"GET / HTTP/1.1\r\n\r\n", b""):
        with pool._company.connect(time.monotonic() + PATIENCE) as wire:
            wire.pour(nonsense)
    with pool._company.connect(time.monotonic() + PATIENCE):
        assert pooling.small(pool) == in_process(SMALL)
    assert pooling.renderers(run) == renderers


def test_an_original_that_cost_three_renderers_is_refused_untried(run: Path, opened: Opener) -> None:
    pool = opened(ONE, replace(LIMITS, seconds=0.3))
    for _ in range(3):
        with pytest.raises(RendererLost):
            pooling.slow(pool)
    assert pooling.small(pool) == in_process(SMALL)
    renderers = pooling.renderers(run)
    began = pooling.cpu_seconds(renderers[0])
    with pytest.raises(Damaged, match="three times within the hour"):
        pool.render(io.BytesIO(pooling.large()), SLOW, None, PATIENCE)
    with pytest.raises(Damaged, match="three times within the hour"):
        pool.render(io.BytesIO(PICTURE), replace(SMALL, hash=SLOW.hash), None, PATIENCE)
    assert pooling.small(pool) == in_process(SMALL)
    assert pooling.renderers(run) == renderers
    assert pooling.cpu_seconds(renderers[0]) - began < 0.2


def test_losses_are_forgotten_after_an_hour_and_after_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, now = lost.Ledger(tmp_path), lost._now()
    for past in (3500, 20, 10):
        monkeypatch.setattr(lost, "_now", lambda past=past: now - past + 4000)
        ledger.add(HASH)
    with pytest.raises(Damaged):
        ledger.refuse(HASH)
    monkeypatch.setattr(lost, "_now", lambda: now + 4000 + 200)
    ledger.refuse(HASH)
    monkeypatch.setattr(lost, "_now", lambda: now + 9000)
    ledger.add("6" * 64)
    assert [page.name for page in tmp_path.iterdir()] == ["6" * 64]
    ledger.add("6" * 64)
    ledger.add("6" * 64)
    monkeypatch.setattr(lost, "_boot", lambda: "another")
    ledger.refuse("6" * 64)


def test_a_page_of_the_ledger_that_is_nonsense_refuses_nobody(tmp_path: Path) -> None:
    (tmp_path / HASH).write_text("1\n\n2 x\n" + f"{lost._boot()} -5\n{lost._boot()} 99999999999\n")
    lost.Ledger(tmp_path).refuse(HASH)


@pytest.mark.parametrize("page", ["bytes that are no text", "a directory", "a file in the ledger's place"])
def test_a_ledger_that_cannot_be_kept_refuses_nobody(tmp_path: Path, page: str) -> None:
    ledger = lost.Ledger(tmp_path / "lost")
    if page == "bytes that are no text":
        (tmp_path / "lost").mkdir()
        (tmp_path / "lost" / HASH).write_bytes(b"\xff\xfe 1\n\xb2 \xb2\n")
    elif page == "a directory":
        (tmp_path / "lost" / HASH).mkdir(parents=True)
    else:
        (tmp_path / "lost").touch()
    ledger.refuse(HASH)
    ledger.add(HASH)
    ledger.refuse(HASH)


def test_a_pool_whose_directory_was_removed_begins_anew(run: Path, opened: Opener) -> None:
    pool, other = opened(), opened()
    assert pooling.small(pool) == in_process(SMALL)
    pooling.ready(other, run, 2)
    shutil.rmtree(run)
    assert pool.render(io.BytesIO(PICTURE), SMALL, None, PATIENCE) == in_process(SMALL)
    other.check(PATIENCE)


def test_what_the_system_refuses_on_the_way_to_a_renderer_is_a_lack_of_capacity(run: Path, opened: Opener) -> None:
    run.touch()
    pool = opened()
    with pytest.raises(Busy, match="no renderer can be reached") as refused:
        pooling.small(pool)
    assert str(run) not in str(refused.value)
    with pytest.raises(Busy, match="no renderer can be reached"):
        pool.check(0.1)
    run.unlink()
    assert pooling.small(pool) == in_process(SMALL)


def test_a_keeper_killed_under_load_costs_the_jobs_in_hand_and_comes_back(run: Path, opened: Opener) -> None:
    pool = opened()
    (keeper,) = pooling.keepers(run) if pooling.ready(pool, run, 2) else []
    name, picture = Derived(HASH, "webp", q=90), pooling.noise(900, 600)
    jobs = [Attempt(lambda pool: pool.render(io.BytesIO(picture), name, None, PATIENCE), pool) for _ in range(12)]
    pooling.busy(run)
    os.kill(keeper, signal.SIGKILL)
    outcomes = [job.result() for job in jobs]
    lost_ones = [outcome for outcome in outcomes if outcome != in_process(name, picture)]
    assert len(lost_ones) <= PLAN.renderers
    assert all(isinstance(outcome, RendererLost) for outcome in lost_ones)
    assert len(pooling.keepers(run)) == 1
    assert not (run / "lost").exists()


def test_more_memory_than_the_plan_has_is_an_error_and_not_an_end(opened: Opener) -> None:
    pool = opened(replace(ONE, memory=220 * 2**20))
    with pytest.raises((errors.TooMuch, RendererLost, Damaged)):
        pool.render(io.BytesIO(pooling.large()), Derived(HASH, "avif", turn=90), None, PATIENCE)
    assert pooling.small(pool) == in_process(SMALL)


def test_renderers_that_cannot_start_are_said_to_be_missing(opened: Opener, run: Path) -> None:
    pool = opened(replace(ONE, memory=2**20))
    with pytest.raises(RendererLost, match="no renderer is ready"):
        pool.check(0.5)
    with pytest.raises(Busy):
        pool.render(io.BytesIO(PICTURE), SMALL, None, 0.3)
    pooling.until(lambda: "ended with" in (run / "pool.log").read_text())


def test_a_keeper_that_cannot_start_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "pool.log").mkdir()
    pool = Pool(tmp_path, LIMITS, ONE)
    with pytest.raises(RendererLost, match="no render process can be started"):
        pooling.small(pool)
    assert pooling.keepers(tmp_path) == []


# ---- what is too much


def test_a_full_queue_refuses_at_once(run: Path, opened: Opener) -> None:
    plan = replace(ONE, queue=2, renders=1234)
    pool = opened(plan)
    (renderer,) = map(pooling.stopped, pooling.ready(pool, run, 1))
    jobs = [Attempt(pooling.small, pool) for _ in range(2)]
    pooling.until(lambda: pooling.waiting(plan) == 2)
    began = time.monotonic()
    with pytest.raises(Busy, match="too many") as refused:
        pooling.small(pool)
    assert refused.value.retry_after >= 1
    assert time.monotonic() - began < PATIENCE / 2
    os.kill(renderer, signal.SIGCONT)
    assert [job.result() for job in jobs] == [in_process(SMALL)] * 2


def test_who_has_waited_long_enough_is_told_so_and_the_job_is_not_rendered(run: Path, opened: Opener) -> None:
    pool = opened(ONE)
    (renderer,) = map(pooling.stopped, pooling.ready(pool, run, 1))
    for _ in range(3):
        with pytest.raises(Busy, match="all renderers are busy") as refused:
            pool.render(io.BytesIO(pooling.large()), SLOW, None, 0.1)
        assert refused.value.retry_after >= 1
    before = pooling.cpu_seconds(renderer)
    os.kill(renderer, signal.SIGCONT)
    assert pooling.small(pool) == in_process(SMALL)
    assert pooling.renderers(run) == [renderer]
    assert pooling.cpu_seconds(renderer) - before < 1.0
    assert not (run / "lost").exists()


# ---- what it leaves behind


def test_a_renderer_is_replaced_after_its_share(run: Path, opened: Opener) -> None:
    pool = opened(replace(ONE, renders=3))
    for _ in range(3):
        renderers = pooling.ready(pool, run, 1)
        for _ in range(2):
            assert pooling.small(pool) == in_process(SMALL)
            assert pooling.renderers(run) == renderers
        assert pooling.small(pool) == in_process(SMALL)
        pooling.until(partial(changed, run, renderers))
    assert (run / "pool.log").read_text() == ""


def test_a_renderer_that_has_grown_too_large_is_replaced(run: Path, opened: Opener) -> None:
    pool = opened(replace(ONE, resident=1))
    for _ in range(3):
        renderers = pooling.ready(pool, run, 1)
        assert pooling.small(pool) == in_process(SMALL)
        pooling.until(partial(changed, run, renderers))
    assert (run / "pool.log").read_text() == ""


def test_five_hundred_jobs_leave_nothing_behind(run: Path, opened: Opener) -> None:
    pool = opened()
    pooling.small(pool)
    renderers = pooling.ready(pool, run, 2)
    (keeper,) = pooling.keepers(run)
    gc.collect()
    before = [pooling.descriptors(pid) for pid in (os.getpid(), keeper)]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: pooling.small(pool), range(500))) == {in_process(SMALL)}
    # Fewer descriptors than jobs are permitted to a renderer: one that kept some would have died.
    assert pooling.renderers(run) == renderers
    assert [pooling.descriptors(pid) for pid in (os.getpid(), keeper)] == before
    assert "Z" not in {pooling.state(pid) for pid in renderers}


# ---- what is said


def test_answers_are_read_as_they_were_written() -> None:
    facts = render.probe(io.BytesIO(PICTURE), LIMITS)
    assert answers.read_facts(answers.write_facts(facts)) == facts
    assert answers.read_abilities(answers.write_abilities(render.abilities())) == render.abilities()
    assert answers.read_size(answers.write_size(b"four")) == 4


@pytest.mark.parametrize(
    "head",
    [{"size": -1}, {"size": 2**40}, {"size": True}, {"size": "1"}, {"facts": []}, {"facts": {"type": "exe"}}, {"error": "SystemExit"}, {}],
    ids=str,
)
def test_an_answer_that_makes_no_sense_is_a_lost_renderer(head: dict[str, object]) -> None:
    def read() -> None:
        answers.raise_refusal(head)
        answers.read_size(head)
        answers.read_facts(head)

    with pytest.raises(RendererLost):
        read()
