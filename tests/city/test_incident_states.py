"""Every step to every case in every state by every role: what may be done, written here once more, by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.city.auth.rights import Caller, Role
from gateway.city.database.engine import Database
from gateway.city.database.tables import Incident
from gateway.city.incidents.cases import Cases, Report, Wish
from gateway.city.incidents.classes import load
from gateway.city.incidents.states import APPROVED, PHOTOS, STEPS, State
from gateway.city.problems import ProblemError
from tests.city.conftest import city_config

R, F, D, H, V, X = (
    State.REPORTED,
    State.FILED,
    State.DISPATCHED,
    State.HANDLING,
    State.VERIFYING,
    State.DEFERRED,
)
OPEN = {R, F, D, H, V, X}
O, P, T, A = "operator", "dispatcher", "department", "administrator"  # noqa: E741 - one letter a role
EXPECTED: dict[str, tuple[set[State], set[str], State | None]] = {
    "file": ({R}, {O, P, A}, F),
    "refuse": ({R}, {O, P, A}, State.REFUSED),
    "dispatch": ({F}, {P, A}, D),
    "accept": ({D}, {T, A}, H),
    "handled": ({H}, {T, A}, V),
    "confirm": ({V}, {O, A}, State.CLOSED),
    "reject": ({V}, {O, A}, D),
    "resume": ({X}, {P, T, A}, H),
    "merge": (OPEN, {O, P, A}, State.MERGED),
    "note": (set(State), {O, P, T, A}, None),
    "ask-return": ({D, H}, {T, A}, None),
    "ask-void": ({F, D, H}, {O, P, T, A}, None),
    "ask-extension": ({D, H}, {T, A}, None),
    "ask-deferral": ({D, H}, {T, A}, None),
    "approve": (set(), set(), None),  # nothing waits for approval here
    "decline": (set(), set(), None),
}


@pytest.fixture
def cases(tmp_path: Path) -> Iterator[Cases]:
    database = Database(city_config(tmp_path))
    database.open()
    yield Cases(database, load(None))
    database.close()


def _case(cases: Cases, state: State) -> int:
    incident = cases.open(Report("hand", "water", "a case"), "test")
    with cases.database.write() as transaction:
        found = transaction.get_one(Incident, incident.id)
        found.state, found.department = state.value, "water"
        if state in {State.CLOSED, State.REFUSED, State.VOID, State.MERGED}:
            found.due = None
    return incident.id


def _caller(role: str, name: str = "") -> Caller:
    return Caller(name or role, Role(role), "", 1, departments=("water",))


def test_the_table_is_the_one_above() -> None:
    assert STEPS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("action", EXPECTED)
def test_a_step_is_done_in_its_states_by_its_roles_alone(cases: Cases, action: str) -> None:
    states, roles, target = EXPECTED[action]
    other = _case(cases, F)
    for state in State:
        for role in Role:
            number = _case(cases, state)
            wish = Wish(action, note="because", hours=2.0, into=other)
            right = state in states and role.value in roles
            allowed = cases.allowed(_caller(role), cases.one(_caller(A), number))
            assert (action in allowed) == right, (state, role)
            if right:
                cases.act(_caller(role), number, wish)
            else:
                with pytest.raises(ProblemError) as refused:
                    cases.act(_caller(role), number, wish)
                assert refused.value.status in {403, 409}, (state, role)
            after = cases.one(_caller(A), number)
            assert after.state == ((target or state) if right else state), (state, role)
            assert [step.action for step in after.steps] == (["open", action] if right else ["open"])


@pytest.mark.parametrize(
    ("asks", "state", "target"),
    [
        ("ask-return", H, F),
        ("ask-return", D, F),
        ("ask-void", F, State.VOID),
        ("ask-void", H, State.VOID),
        ("ask-extension", H, H),
        ("ask-extension", D, D),
        ("ask-deferral", H, X),
        ("ask-deferral", D, X),
    ],
)
@pytest.mark.parametrize("answer", ["approve", "decline"])
def test_what_is_asked_for_needs_the_answer_of_a_dispatcher_who_did_not_ask(
    cases: Cases, asks: str, state: State, target: State, answer: str
) -> None:
    number = _case(cases, state)
    asker = _caller(A, "asker")
    cases.act(asker, number, Wish(asks, note="because", hours=2.0))
    with pytest.raises(ProblemError, match="already"):
        cases.act(_caller(A, "else"), number, Wish("ask-void", note="because"))
    with pytest.raises(ProblemError, match="somebody else"):
        cases.act(asker, number, Wish(answer, note="fine"))
    for role in ("viewer", O, T):
        with pytest.raises(ProblemError) as refused:
            cases.act(_caller(role), number, Wish(answer, note="fine"))
        assert refused.value.status == 403
    after = cases.act(_caller(P), number, Wish(answer, note="fine"))
    assert after.state == (target if answer == "approve" else state)
    assert after.asked is None
    assert after.steps[-1].detail["by"] == "asker"


@pytest.mark.parametrize(
    ("stage", "states", "roles"), [("before", {R, F, D, H}, {O, P, T, A}), ("after", {H, V}, {O, T, A})]
)
def test_photographs_are_added_in_their_states_by_their_roles_alone(
    cases: Cases, stage: str, states: set[State], roles: set[str]
) -> None:
    assert PHOTOS.keys() == {"before", "after"}
    for state in State:
        for role in Role:
            number = _case(cases, state)
            right = state in states and role.value in roles
            assert (stage in cases.may_add(_caller(role), cases.one(_caller(A), number))) == right, (state, role)
            if right:
                after = cases.add_staff_photo(_caller(role), number, stage, b"jpeg")
                assert after.steps[-1].detail["stage"] == stage
                assert [photo.who for photo in cases.photos(number)] == [role.value]
            else:
                with pytest.raises(ProblemError) as refused:
                    cases.add_staff_photo(_caller(role), number, stage, b"jpeg")
                assert refused.value.status in {403, 409}, (state, role)
                assert cases.photos(number) == []


def test_every_request_has_an_outcome() -> None:
    assert {step.asks for step in STEPS.values() if step.asks} == APPROVED.keys()


@pytest.mark.parametrize("action", [name for name, step in STEPS.items() if step.note])
def test_some_steps_need_a_reason(cases: Cases, action: str) -> None:
    with pytest.raises(ProblemError, match="needs a note") as refused:
        cases.act(_caller(A), _case(cases, H), Wish(action, note=" "))
    assert refused.value.status == 422
