"""Any number of sessions, commits, lost disks and reverts, against a model of a few lines: every outcome is the model's."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, precondition, rule

from imgproxy.errors import Conflict, Missing, NoSession
from imgproxy.meta.query import Query
from imgproxy.meta.record import Record
from imgproxy.meta.sync import Sync
from tests.meta.making import hash_of, live, place, record

COUNT = 6
NUMBERS = st.integers(0, COUNT - 1)
TITLES = st.sampled_from(["sun", "moon", "red sun", ""])
ALIASES = st.sampled_from(["", "1", "2"])


@dataclass(frozen=True)
class State:
    """What the model knows of a record."""

    title: str
    alias: str

    def record(self, number: int) -> Record:
        return record(number, title=self.title, domain="d" if self.alias else "", dkey=self.alias)


@dataclass
class Draft:
    """A session of the model: new states, and the versions that they are based on."""

    states: dict[int, State | None] = field(default_factory=dict)
    based_on: dict[int, int] = field(default_factory=dict)


Live = dict[int, tuple[State, int]]


class Sessions(RuleBasedStateMachine):
    """The repository and the model, told the same."""

    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.here = place(self.root)
        self.here.keep(*range(COUNT))
        self.life = 0
        self.words = self.here.node("0", holder="node")
        self.live: Live = {}
        self.before: list[Live] = [{}]
        self.drafts: dict[str, Draft] = {}

    def teardown(self) -> None:
        if hasattr(self, "words"):
            self.words.close()
            shutil.rmtree(self.root)

    # ---- what the model says

    def seen(self, draft: Draft, number: int) -> State | None:
        return draft.states[number] if number in draft.states else self.live[number][0] if number in self.live else None

    def stage(self, draft: Draft, number: int, state: State | None) -> None:
        draft.states[number] = state
        draft.based_on.setdefault(number, self.live[number][1] if number in self.live else 0)
        if state is None and draft.based_on[number] == 0 and number not in self.live:
            del draft.states[number], draft.based_on[number]

    def conflicts(self, draft: Draft) -> set[int]:
        changed = {number for number, version in draft.based_on.items() if version != (self.live[number][1] if number in self.live else 0)}
        if changed:
            return changed
        after = {number: state for number, (state, _) in self.live.items()} | draft.states
        users: dict[str, list[int]] = {}
        for number, state in after.items():
            if state and state.alias:
                users.setdefault(state.alias, []).append(number)
        return {number for numbers in users.values() if len(numbers) > 1 for number in numbers if number in draft.states}

    def spare(self, draft: Draft) -> bool:
        """Forget what a draft adds that is live by now and of which it says nothing new; whether there was any."""
        spare = []
        for number, state in draft.states.items():
            if state is not None and draft.based_on[number] == 0 and number in self.live:
                there = self.live[number][0]
                if state.title in ("", there.title) and state.alias in ("", there.alias):
                    spare.append(number)
        for number in spare:
            del draft.states[number], draft.based_on[number]
        return bool(spare)

    def apply(self, draft: Draft) -> None:
        n = len(self.before)
        for number, state in draft.states.items():
            if state is None:
                self.live.pop(number, None)
            else:
                self.live[number] = (state, n)
        self.before.append(dict(self.live))

    # ---- what is done to both

    @rule(target=sessions)
    def open(self) -> str:
        session = self.words.sessions.open()
        self.drafts[session.id] = Draft()
        return session.id

    @rule(which=sessions, number=NUMBERS, title=TITLES, alias=ALIASES)
    def put(self, which: str, number: int, title: str, alias: str) -> None:
        if which not in self.drafts:
            with pytest.raises(NoSession):
                self.words.sessions.find(which)
            return
        state = State(title, alias)
        self.words.sessions.put(self.words.sessions.find(which), state.record(number))
        self.stage(self.drafts[which], number, state)

    @rule(which=sessions, number=NUMBERS, title=TITLES)
    def edit(self, which: str, number: int, title: str) -> None:
        if which not in self.drafts:
            return
        session, draft = self.words.sessions.find(which), self.drafts[which]
        state = self.seen(draft, number)
        if state is None:
            with pytest.raises(Missing):
                self.words.sessions.edit(session, hash_of(number), {"title": title})
            return
        self.words.sessions.edit(session, hash_of(number), {"title": title})
        self.stage(draft, number, State(title, state.alias))

    @rule(which=sessions, number=NUMBERS)
    def delete(self, which: str, number: int) -> None:
        if which not in self.drafts:
            return
        session, draft = self.words.sessions.find(which), self.drafts[which]
        if self.seen(draft, number) is None:
            with pytest.raises(Missing):
                self.words.sessions.delete(session, hash_of(number))
            return
        self.words.sessions.delete(session, hash_of(number))
        self.stage(draft, number, None)

    @rule(which=sessions, number=NUMBERS)
    def forget(self, which: str, number: int) -> None:
        if which in self.drafts:
            self.words.sessions.forget(self.words.sessions.find(which), hash_of(number))
            self.drafts[which].states.pop(number, None)
            self.drafts[which].based_on.pop(number, None)

    @rule(which=consumes(sessions))
    def discard(self, which: str) -> None:
        if which in self.drafts:
            self.words.sessions.discard(self.words.sessions.find(which))
            del self.drafts[which]

    @rule(target=sessions, which=consumes(sessions), lost=st.booleans())
    def commit(self, which: str, lost: bool) -> object:
        """Commit; perhaps lose the disk just after the answer, with all sessions on it."""
        if which not in self.drafts:
            return multiple()
        draft = self.drafts[which]
        conflicts = self.conflicts(draft)
        if conflicts and self.spare(draft):
            conflicts = self.conflicts(draft)
        if conflicts:
            with pytest.raises(Conflict) as caught:
                self.words.commits.commit(which)
            assert set(caught.value.records) == set(map(hash_of, conflicts))
            return which
        done = self.words.commits.commit(which)
        if done is None:
            assert not draft.states
            return which
        self.apply(draft)
        assert done.n == len(self.before) - 1
        assert self.words.commits.commit(which) == done
        del self.drafts[which]
        if lost:
            self.lose_the_disk()
            assert self.words.commits.commit(which) == done
        return multiple()

    @rule(target=sessions, data=st.data())
    @precondition(lambda self: len(self.before) > 1)
    def revert(self, data: st.DataObject) -> object:
        n = data.draw(st.integers(1, len(self.before) - 1))
        then, now = self.before[n - 1], self.before[n]
        touched = {number for number in {*then, *now} if then.get(number) != now.get(number)}
        draft = Draft(
            {number: then[number][0] if number in then else None for number in touched},
            {number: now[number][1] if number in now else 0 for number in touched},
        )
        changed = {number for number, version in draft.based_on.items() if version != (self.live[number][1] if number in self.live else 0)}
        if changed:
            with pytest.raises(Conflict) as caught:
                self.words.commits.revert(n, self.words.sessions)
            assert set(caught.value.records) == set(map(hash_of, changed))
            return multiple()
        session = self.words.commits.revert(n, self.words.sessions)
        self.drafts[session.id] = draft
        return session.id

    @rule()
    def restart(self) -> None:
        self.words.close()
        self.words = self.here.node(str(self.life), holder="node")
        assert self.words.booted.how == "kept"

    @rule()
    def lose_the_disk(self) -> None:
        self.words.close()
        shutil.rmtree(self.root / str(self.life))
        self.life += 1
        self.words = self.here.node(str(self.life), holder="node")
        self.drafts.clear()

    @rule()
    def snapshot(self) -> None:
        assert self.words.snapshots.take() == len(self.before) - 1

    # ---- what must be so at any time

    @invariant()
    def what_is_live_is_what_the_model_says(self) -> None:
        if not hasattr(self, "words"):
            return
        expected = {hash_of(number): (state, version) for number, (state, version) in self.live.items()}
        assert {hash: (State(one.title, one.dkey), one.version) for hash, one in live(self.words).items()} == expected

    @invariant()
    def every_session_shows_what_the_model_says(self) -> None:
        for which, draft in getattr(self, "drafts", {}).items():
            session = self.words.sessions.find(which)
            seen = {number: self.words.sessions.read(hash_of(number), session) for number in range(COUNT)}
            expected = {number: self.seen(draft, number) for number in range(COUNT)}
            assert {number: State(one.title, one.dkey) if one else None for number, one in seen.items()} == expected
            found = {one.hash for one in self.words.search.page(Query(words="sun"), session=session).records}
            assert found == {hash_of(number) for number, state in expected.items() if state and "sun" in state.title}
            differing = {one.hash: one.stale for one in self.words.sessions.diff(session)}
            versions = {number: self.live[number][1] if number in self.live else 0 for number in range(COUNT)}
            assert differing == {hash_of(number): version != versions[number] for number, version in draft.based_on.items()}

    @invariant()
    def the_public_finds_committed_words_alone(self) -> None:
        if hasattr(self, "words"):
            page = self.words.search.page(Query(words="sun"))
            expected = {hash_of(number) for number, (state, _) in self.live.items() if "sun" in state.title}
            assert {one.hash for one in page.records} == expected
            assert self.words.search.page(Query()).total == len(self.live)

    @invariant()
    def no_original_is_lost(self) -> None:
        if hasattr(self, "words"):
            assert not [one for one in Sync(self.words.chain, self.words.commits, self.here.base).differences() if one.kind == "lost"]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
