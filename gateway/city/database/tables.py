"""The tables as classes. Times are milliseconds since 1970, UTC."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, String
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


class Session(Base):
    """Someone who has signed in; the cookie's secret is kept as its SHA-256."""

    __tablename__ = "session"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    expires: Mapped[int] = mapped_column(BigInteger)
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
