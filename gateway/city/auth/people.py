"""People, their sessions, tokens and links. Every change is on the audit trail, in the transaction that makes it."""

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session as Transaction

from gateway.city.auth import secret
from gateway.city.auth.rights import Caller, Role, Scope
from gateway.city.auth.throttle import Throttle
from gateway.city.database.engine import Database
from gateway.city.database.tables import Audit, Link, Person, Session, Token
from gateway.city.problems import ProblemError

SESSION_MS = 12 * 3_600_000
LINK_MS = 3 * 86_400_000
MARK = 16  # so many hex digits of its digest name a session
TOKEN_PREFIX = "citygate_"  # noqa: S105 - how a token of ours begins, so that scanners of leaked secrets know it
FIRST = "admin"
SIGN_ON = "single sign-on"
UNREACHABLE: Final = "unreachable"
FAILED: Final = "failed"
LATE: Final = "late"
Why = Literal["unreachable", "failed", "late", "no-role", "taken", "disabled"]
"""Why somebody was not let in: the provider does not answer; it did not vouch for them; the attempt took too long, or
was of another browser; nothing says what they may do; a local account has their name; they are disabled."""
_SPENT = "This link has been used or is too old. An administrator can make another: citygate user link NAME."

_CAN_SIGN_IN = Person.password.is_not(None) | Person.subject.is_not(None)
_ADMINISTRATORS = select(Person.id).where(Person.role == Role.ADMINISTRATOR, Person.disabled.is_(False), _CAN_SIGN_IN)


class Origin(NamedTuple):
    """From where someone signs in: address, and what the browser calls itself."""

    address: str
    agent: str


class SignOnError(Exception):
    """Somebody is not let in.

    Attributes:
        why: In one word, for the page.
    """

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


class Claimed(NamedTuple):
    """Whom the city's single sign-on vouches for.

    Attributes:
        subject: Who it is to the provider, for good.
        name: To sign in by there.
        title: How the person is called.
        role: What they may do; None if nothing says so.
        follows: The role is the provider's to change, and not this view's.
        districts: The only districts whose cases they see; None if the provider does not say.
        departments: The departments for which they work; None if the provider does not say.
    """

    subject: str
    name: str
    title: str
    role: Role | None
    follows: bool
    districts: list[str] | None
    departments: list[str] | None

    @property
    def login(self) -> str:
        """Their name here, without what a name here cannot have."""
        return re.sub(r"[\s/\x00-\x1f]+", "_", self.name)[:64]


class Sought(NamedTuple):
    """Which lines of the audit trail are wanted: parts of names, of what was done or to whom; times in ms."""

    who: str | None = None
    what: str | None = None
    since: int | None = None
    until: int | None = None


def now_ms() -> int:
    """This moment."""
    return time.time_ns() // 1_000_000


def record(
    transaction: Transaction,
    who: str,
    address: str,
    action: str,
    about: str,
    **detail: Any,  # noqa: ANN401 - JSON
) -> None:
    """Puts a line on the audit trail."""
    transaction.add(Audit(time=now_ms(), who=who, address=address, action=action, about=about, detail=detail))


class _Counted:
    """A database that counts the changes made through it."""

    def __init__(self, database: Database) -> None:
        self.read, self._write = database.read, database.write
        self.changes = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._write() as transaction:
            yield transaction
        self.changes += 1


class People:
    """What is known of people.

    As long as nobody can sign in, people are *off*: the view works by tokens and loopback alone.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = _Counted(database)
        self._on = False
        self._names = Throttle(10, 600.0, "wrong attempts to sign in by this name")

    @property
    def changes(self) -> int:
        """Rises with every change: somebody's rights may have ended."""
        return self._database.changes

    @property
    def on(self) -> bool:
        """Whether anyone can sign in; from then on everyone must."""
        if not self._on:
            with self._database.read() as transaction:
                self._on = transaction.scalar(select(Person.id).where(_CAN_SIGN_IN).limit(1)) is not None
        return self._on

    def first_link(self) -> str | None:
        """A new link for an administrator while none can sign in, the earlier ones being void."""
        with self._database.write() as transaction:
            if transaction.scalar(_ADMINISTRATORS.limit(1)) is not None:
                return None
            person = transaction.scalar(select(Person).where(Person.role == Role.ADMINISTRATOR).limit(1))
            if person is None:
                person = _add(transaction, FIRST, FIRST, Role.ADMINISTRATOR)
            return _link(transaction, person, "citygate", "")

    # signing in

    def sign_in(self, name: str, password: str, origin: Origin) -> str | None:
        """Opens a session.

        Returns:
            The session's secret, or nothing if name and password do not belong together.

        Raises:
            ProblemError: 429 after too many wrong passwords for this name.
        """
        self._names.check(name)
        with self._database.read() as transaction:
            person = transaction.scalar(select(Person).where(Person.name == name, Person.disabled.is_(False)))
        kept = None if person is None else person.password
        if not secret.matches(password, kept) or person is None:
            self._names.failed(name)
            with self._database.write() as transaction:
                # a name that nobody has may be a password in the wrong field
                record(transaction, "" if person is None else name, origin.address, "sign-in refused", "session")
            return None
        with self._database.write() as transaction:
            return _session(transaction, person.id, origin)

    def sign_on(self, claimed: Claimed, origin: Origin) -> str:
        """Opens a session for whom the city's single sign-on vouches, and makes them known if they were not.

        Returns:
            The session's secret.

        Raises:
            SignOnError: If they may not be here.
        """
        with self._database.write() as transaction:
            person = transaction.scalar(select(Person).where(Person.subject == claimed.subject))
            why = _why_not(transaction, person, claimed)
            if why is None:
                person = _welcome(transaction, person, claimed, origin)
                session = _session(transaction, person.id, origin)
            else:
                who = "" if person is None else person.name
                record(transaction, who, origin.address, "sign-in refused", "single sign-on", why=why)
                if person is not None:
                    transaction.execute(delete(Session).where(Session.person_id == person.id))
        if why is not None:
            raise SignOnError(why)
        self._on = True
        return session

    def by_session(self, session: str, address: str) -> Caller | None:
        """Who has this cookie."""
        with self._database.read() as transaction:
            found = transaction.get(Session, secret.digest(session))
            if found is None or found.expires <= now_ms() or found.person.disabled:
                return None
            return _caller(found.person, address, csrf=secret.csrf(session), session=found.digest[:MARK])

    def by_token(self, token: str, address: str) -> Caller | None:
        """Whose API token this is."""
        with self._database.read() as transaction:
            found = transaction.scalar(select(Token).where(Token.digest == secret.digest(token)))
            if found is None or found.expires <= now_ms() or found.person.disabled:
                return None
            return _caller(found.person, address, scope="write" if found.scope == "write" else "read")

    def sign_out(self, session: str, caller: Caller) -> None:
        """Ends a session."""
        with self._database.write() as transaction:
            transaction.execute(delete(Session).where(Session.digest == secret.digest(session)))
            record(transaction, caller.name, caller.address, "signed out", "session")

    def sessions(self, caller: Caller) -> list[Session]:
        """Where the caller is signed in, the newest first."""
        with self._database.read() as transaction:
            theirs = select(Session).where(Session.person_id == caller.person, Session.expires > now_ms())
            return list(transaction.scalars(theirs.order_by(Session.created.desc(), Session.digest)))

    def end_sessions(self, caller: Caller, mark: str | None = None) -> None:
        """Ends one of the caller's sessions; without ``mark``, all but the one that asks.

        Raises:
            ProblemError: 403 if the caller has not signed in with a password, 404 without such a session.
        """
        person = in_person(caller)
        with self._database.write() as transaction:
            theirs = transaction.scalars(select(Session).where(Session.person_id == person))
            ended = [one for one in theirs if one.digest[:MARK] == mark or (mark is None and not is_of(caller, one))]
            if mark is not None and not ended:
                raise ProblemError(404, f"You have no session {mark}; see /api/v1/sessions.")
            for one in ended:
                transaction.delete(one)
                about = f"session {one.digest[:MARK]}"
                record(transaction, caller.name, caller.address, "ended", about, of=one.address, agent=one.agent)

    # links and passwords

    def of_link(self, link: str) -> str:
        """The name of the person whom a link lets choose a password.

        Raises:
            ProblemError: 404 if the link has been used or is too old.
        """
        with self._database.read() as transaction:
            return _valid(transaction, link).person.name

    def use_link(self, link: str, password: str, origin: Origin) -> str:
        """Sets the password of the person who holds the link, and signs them in; the link is used up.

        Returns:
            The session's secret.

        Raises:
            ProblemError: 404 if the link has been used or is too old, 422 if the password is too weak.
        """
        _refuse_weak(password, self.of_link(link))
        kept = secret.hashed(password)
        with self._database.write() as transaction:
            person = _valid(transaction, link).person
            _set_password(transaction, person, kept)
            record(transaction, person.name, origin.address, "chose a password by a link", f"person {person.name}")
            session = _session(transaction, person.id, origin)
        self._on = True
        return session

    def change_password(self, caller: Caller, old: str, new: str, origin: Origin) -> str:
        """Changes the caller's password; ends all their sessions and opens a new one.

        Returns:
            The new session's secret.

        Raises:
            ProblemError: 403 if the old password is wrong, 422 if the new one is too weak, 429 after too many tries.
        """
        person_id = in_person(caller)
        self._names.check(caller.name)
        with self._database.read() as transaction:
            kept = transaction.get_one(Person, person_id).password
        if not secret.matches(old, kept):
            self._names.failed(caller.name)
            raise ProblemError(403, "The old password is wrong.")
        _refuse_weak(new, caller.name)
        hashed = secret.hashed(new)
        with self._database.write() as transaction:
            person = transaction.get_one(Person, person_id)
            _set_password(transaction, person, hashed)
            record(transaction, caller.name, caller.address, "changed the password", f"person {person.name}")
            return _session(transaction, person_id, origin)

    # people

    def all(self) -> list[Person]:
        """Everyone, by name."""
        with self._database.read() as transaction:
            return list(transaction.scalars(select(Person).order_by(Person.name)))

    def add(  # noqa: PLR0913, PLR0917 - what a person has
        self, caller: Caller, name: str, title: str, role: Role, districts: list[str], departments: list[str]
    ) -> tuple[Person, str]:
        """Adds a person.

        Returns:
            The person, and the link by which they choose their password.

        Raises:
            ProblemError: 409 if there is someone of that name.
        """
        with self._database.write() as transaction:
            if transaction.scalar(select(Person).where(Person.name == name)) is not None:
                raise ProblemError(409, f"There is a person '{name}' already.")
            person = _add(transaction, name, title, role)
            person.districts, person.departments = districts, departments
            about = {"title": title, "role": role, "districts": districts, "departments": departments}
            record(transaction, caller.name, caller.address, "added", f"person {name}", **about)
            return person, _link(transaction, person, caller.name, caller.address)

    def change(self, caller: Caller, person_id: int, changes: dict[str, Any]) -> Person:
        """Changes a person; whoever is disabled or gets another role has to sign in again.

        Raises:
            ProblemError: 404 without such a person, 409 if no administrator would be left.
        """
        with self._database.write() as transaction:
            person = _person(transaction, person_id)
            changes = {key: value for key, value in changes.items() if getattr(person, key) != value}
            if not changes:
                return person
            was = {key: getattr(person, key) for key in changes}
            for key, value in changes.items():
                setattr(person, key, value)
            transaction.flush()
            if transaction.scalar(_ADMINISTRATORS.limit(1)) is None:
                raise ProblemError(409, f"{person.name} is the last administrator who can sign in; make another first.")
            if person.disabled or "role" in changes:
                transaction.execute(delete(Session).where(Session.person_id == person_id))
            if person.disabled:
                transaction.execute(delete(Link).where(Link.person_id == person_id))
            record(transaction, caller.name, caller.address, "changed", f"person {person.name}", was=was, now=changes)
            return person

    def link(self, caller: Caller, person_id: int) -> str:
        """A link by which a person chooses a new password; earlier links are void.

        Raises:
            ProblemError: 404 without such a person, 409 if they are disabled.
        """
        with self._database.write() as transaction:
            person = _person(transaction, person_id)
            if person.disabled:
                raise ProblemError(409, f"{person.name} is disabled; enable them first.")
            return _link(transaction, person, caller.name, caller.address)

    # tokens

    def tokens(self, caller: Caller) -> list[Token]:
        """The caller's API tokens, those that are too old included."""
        with self._database.read() as transaction:
            return list(transaction.scalars(select(Token).where(Token.person_id == caller.person).order_by(Token.id)))

    def add_token(self, caller: Caller, label: str, scope: Scope, days: int) -> tuple[Token, str]:
        """Makes an API token of the caller.

        Returns:
            What is kept of it, and the token, which nobody can see again.

        Raises:
            ProblemError: 403 if the caller has not signed in with a password.
        """
        person, plain, now = in_person(caller), f"{TOKEN_PREFIX}{secret.make()}", now_ms()
        with self._database.write() as transaction:
            token = Token(
                digest=secret.digest(plain),
                person_id=person,
                label=label,
                scope=scope,
                created=now,
                expires=now + days * 86_400_000,
            )
            transaction.add(token)
            transaction.flush()
            about = f"token {token.id}"
            record(transaction, caller.name, caller.address, "made", about, label=label, scope=scope, days=days)
            return token, plain

    def revoke_token(self, caller: Caller, token_id: int) -> None:
        """Ends one of the caller's API tokens; an administrator ends anyone's.

        Raises:
            ProblemError: 404 without such a token.
        """
        in_person(caller)
        with self._database.write() as transaction:
            token = transaction.get(Token, token_id)
            if token is None or (token.person_id != caller.person and caller.role != Role.ADMINISTRATOR):
                raise ProblemError(404, f"You have no token {token_id}.")
            label, whose = token.label, token.person.name
            transaction.delete(token)
            record(transaction, caller.name, caller.address, "revoked", f"token {token_id}", label=label, of=whose)

    def note(self, caller: Caller, action: str, about: str, **detail: Any) -> None:  # noqa: ANN401 - JSON
        """Puts on the audit trail what was done outside this database."""
        with self._database.write() as transaction:
            record(transaction, caller.name, caller.address, action, about, **detail)

    @contextlib.contextmanager
    def noting(self, caller: Caller, action: str, about: str, detail: dict[str, Any]) -> Iterator[None]:
        """Puts a change that is not of this database on the audit trail: none is begun that the trail cannot take."""
        with self._database.write() as transaction:
            yield
            record(transaction, caller.name, caller.address, action, about, **detail)

    def audit(self, limit: int, before: int | None, sought: Sought) -> list[Audit]:
        """The newest lines of the audit trail that are sought, newest first; those before the line ``before``."""
        lines = select(Audit).order_by(Audit.id.desc()).limit(limit)
        if before is not None:
            lines = lines.where(Audit.id < before)
        if sought.who:
            lines = lines.where(Audit.who.icontains(sought.who, autoescape=True))
        if sought.what:
            text = sought.what
            lines = lines.where(
                Audit.action.icontains(text, autoescape=True) | Audit.about.icontains(text, autoescape=True)
            )
        if sought.since is not None:
            lines = lines.where(Audit.time >= sought.since)
        if sought.until is not None:
            lines = lines.where(Audit.time < sought.until)
        with self._database.read() as transaction:
            return list(transaction.scalars(lines))


def in_person(caller: Caller) -> int:
    """The id of a caller who has signed in with a password.

    Raises:
        ProblemError: 403 for tokens and for this machine.
    """
    if caller.person is None or caller.csrf is None:
        raise ProblemError(403, "Only who has signed in with a password can do this, not a token.")
    return caller.person


def can_sign_in(person: Person) -> bool:
    """Whether someone has a password, or comes by single sign-on."""
    return person.password is not None or person.subject is not None


def is_of(caller: Caller, session: Session) -> bool:
    """Whether a session is the one that the caller asks by."""
    return session.digest[:MARK] == caller.session


def _caller(
    person: Person, address: str, *, scope: Scope = "write", csrf: str | None = None, session: str | None = None
) -> Caller:
    return Caller(
        person.name,
        Role(person.role),
        address,
        person.id,
        scope,
        csrf,
        session,
        districts=tuple(person.districts),
        departments=tuple(person.departments),
        single_sign_on=person.subject is not None,
    )


def _person(transaction: Transaction, person_id: int) -> Person:
    person = transaction.get(Person, person_id)
    if person is None:
        raise ProblemError(404, f"There is no person {person_id}; see /api/v1/people.")
    return person


def _add(transaction: Transaction, name: str, title: str, role: Role) -> Person:
    person = Person(name=name, title=title, role=role, password=None, disabled=False, created=now_ms())
    person.districts, person.departments = [], []
    transaction.add(person)
    transaction.flush()
    return person


def _why_not(transaction: Transaction, person: Person | None, claimed: Claimed) -> Why | None:
    """Why somebody whom the single sign-on knows may not be here."""
    if person is not None and person.disabled:
        return "disabled"
    if claimed.role is None and (person is None or claimed.follows):
        return "no-role"
    if person is None and transaction.scalar(select(Person.id).where(Person.name == claimed.login)) is not None:
        return "taken"
    return None


def _welcome(transaction: Transaction, person: Person | None, claimed: Claimed, origin: Origin) -> Person:
    """The person as the single sign-on has them; what it does not know stays as it is here."""
    now: dict[str, Any] = {"title": claimed.title[:200]}
    if person is None:
        person = _add(transaction, claimed.login, now["title"], claimed.role or Role.VIEWER)
        person.subject = claimed.subject
        person.districts, person.departments = claimed.districts or [], claimed.departments or []
        record(transaction, SIGN_ON, origin.address, "added", f"person {person.name}", role=person.role, **now)
        return person
    if claimed.follows:
        now["role"] = claimed.role
    if claimed.districts is not None:
        now["districts"] = claimed.districts
    if claimed.departments is not None:
        now["departments"] = claimed.departments
    now = {key: value for key, value in now.items() if getattr(person, key) != value}
    if now:
        was = {key: getattr(person, key) for key in now}
        for key, value in now.items():
            setattr(person, key, value)
        if "role" in now:
            transaction.execute(delete(Session).where(Session.person_id == person.id))
        record(transaction, SIGN_ON, origin.address, "changed", f"person {person.name}", was=was, now=now)
    return person


def _link(transaction: Transaction, person: Person, who: str, address: str) -> str:
    transaction.execute(delete(Link).where(Link.person_id == person.id))
    plain = secret.make()
    transaction.add(Link(digest=secret.digest(plain), person_id=person.id, expires=now_ms() + LINK_MS))
    record(transaction, who, address, "made a link", f"person {person.name}")
    return plain


def _valid(transaction: Transaction, link: str) -> Link:
    found = transaction.get(Link, secret.digest(link))
    if found is None or found.expires <= now_ms() or found.person.disabled:
        raise ProblemError(404, _SPENT)
    return found


def _set_password(transaction: Transaction, person: Person, kept: str) -> None:
    transaction.execute(update(Person).where(Person.id == person.id).values(password=kept))
    for table in (Session, Link):
        transaction.execute(delete(table).where(table.person_id == person.id))


def _session(transaction: Transaction, person_id: int, origin: Origin) -> str:
    plain, now = secret.make(), now_ms()
    transaction.execute(delete(Session).where(Session.expires <= now))
    transaction.add(
        Session(
            digest=secret.digest(plain),
            person_id=person_id,
            expires=now + SESSION_MS,
            created=now,
            address=origin.address,
            agent=origin.agent[:200],
        )
    )
    person = transaction.get_one(Person, person_id)
    person.last_sign_in = now
    record(transaction, person.name, origin.address, "signed in", "session")
    return plain


def _refuse_weak(password: str, name: str) -> None:
    if why := secret.weakness(password, name):
        raise ProblemError(422, why)
