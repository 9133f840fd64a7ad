"""The tables as classes. Times are milliseconds since 1970, UTC."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """All tables."""


class Person(Base):
    """Who may sign in."""

    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(32))
    password: Mapped[str | None] = mapped_column(String(200))  # argon2id; none until the first link is used
    disabled: Mapped[bool]
    created: Mapped[int] = mapped_column(BigInteger)
    districts: Mapped[list[str]] = mapped_column(JSON)
    departments: Mapped[list[str]] = mapped_column(JSON)
    last_sign_in: Mapped[int | None] = mapped_column(BigInteger)
    subject: Mapped[str | None] = mapped_column(String(500), unique=True)  # who this is to the single sign-on


class Session(Base):
    """Someone who has signed in; the cookie's secret is kept as its SHA-256."""

    __tablename__ = "session"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    expires: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[int] = mapped_column(BigInteger)
    address: Mapped[str] = mapped_column(String(64))
    agent: Mapped[str] = mapped_column(String(200))  # the browser, in its own words
    person: Mapped[Person] = relationship(lazy="joined")


class Token(Base):
    """A program that acts for a person; the token is kept as its SHA-256."""

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    label: Mapped[str] = mapped_column(String(200))
    scope: Mapped[str] = mapped_column(String(32))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger)
    person: Mapped[Person] = relationship(lazy="joined")


class Link(Base):
    """A link by which a person chooses a password, once; kept as its SHA-256."""

    __tablename__ = "link"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    expires: Mapped[int] = mapped_column(BigInteger)
    person: Mapped[Person] = relationship(lazy="joined")


class Audit(Base):
    """Who did what, from where; the database refuses to change it."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[int] = mapped_column(BigInteger, index=True)
    who: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    about: Mapped[str] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class MaintenanceWindow(Base):
    """Sensors that are worked on for a time, by patterns."""

    __tablename__ = "maintenance"

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(String(128))
    sensor: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(128))
    since: Mapped[int] = mapped_column(BigInteger)
    until: Mapped[int] = mapped_column(BigInteger, index=True)
    note: Mapped[str] = mapped_column(Text)
    who: Mapped[str] = mapped_column(String(200))


class Incident(Base):
    """A case as it is now; what became of it step by step is in ``IncidentStep``."""

    __tablename__ = "incident"

    id: Mapped[int] = mapped_column(primary_key=True)
    receipt: Mapped[str] = mapped_column(String(32), unique=True)
    source: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(64))  # its class
    severity: Mapped[str | None] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(Text)
    district: Mapped[str | None] = mapped_column(String(64))
    site: Mapped[str | None] = mapped_column(String(128))
    sensor: Mapped[str | None] = mapped_column(String(400))
    lat: Mapped[float | None]
    lon: Mapped[float | None]
    state: Mapped[str] = mapped_column(String(16), index=True)
    department: Mapped[str | None] = mapped_column(String(64))
    opened: Mapped[int] = mapped_column(BigInteger, index=True)
    entered: Mapped[int] = mapped_column(BigInteger)  # when its stage began
    due: Mapped[int | None] = mapped_column(BigInteger)  # when its stage must end
    left: Mapped[int | None] = mapped_column(BigInteger)  # what a deferral keeps of the time for handling
    allowance: Mapped[int] = mapped_column(BigInteger)  # extensions and deferrals, for its closing
    filed: Mapped[int | None] = mapped_column(BigInteger)
    dispatched: Mapped[int | None] = mapped_column(BigInteger)
    handled: Mapped[int | None] = mapped_column(BigInteger)
    closed: Mapped[int | None] = mapped_column(BigInteger)
    late: Mapped[bool]  # handled, once at least, after its time
    returns: Mapped[int]
    reworks: Mapped[int]
    by_itself: Mapped[bool]  # closed since its cause was over
    merged_into: Mapped[int | None] = mapped_column(ForeignKey("incident.id"))
    asked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    steps: Mapped[list["IncidentStep"]] = relationship(order_by="IncidentStep.id")


class IncidentStep(Base):
    """Something that was done to a case; the database refuses to change it."""

    __tablename__ = "incident_step"

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), index=True)
    time: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))  # the one that followed
    note: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class IncidentEvent(Base):
    """Which case an event, or a sensor's fault, belongs to."""

    __tablename__ = "incident_event"

    event: Mapped[str] = mapped_column(String(400), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), index=True)


class IncidentPhoto(Base):
    """A photograph of a case, written anew as JPEG."""

    __tablename__ = "incident_photo"

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), index=True)
    time: Mapped[int] = mapped_column(BigInteger)
    stage: Mapped[str] = mapped_column(String(16))  # report, before or after
    who: Mapped[str] = mapped_column(String(200))
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)
