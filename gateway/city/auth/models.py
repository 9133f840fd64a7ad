"""What the API says and takes about people."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from gateway.city.auth.rights import Role
from sensors.kinds import Title

Name = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[^\s/\x00-\x1f]+$", description="to sign in by; no spaces")
]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=100)]
_Password = Annotated[str, Field(min_length=1, max_length=1024)]

_TEXT: dict[str, JsonValue] = {"type": "string"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SignIn(_Body):
    """A name and a password, or the read token."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "lin", "password": "a long pass phrase"}],
            "oneOf": [
                {
                    "required": ["name", "password"],
                    "properties": {"name": _TEXT, "password": _TEXT, "token": {"type": "null"}},
                },
                {"required": ["token"], "properties": {"token": _TEXT, "name": {"type": "null"}}},
            ],
        }
    )

    name: str | None = Field(None, min_length=1, max_length=64)
    password: _Password | None = None
    token: str | None = Field(None, min_length=1, max_length=1024, description="the read token")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_name = self.name is not None and self.password is not None
        if by_name == (self.token is not None):
            msg = "send name and password, or token"
            raise ValueError(msg)
        return self


class Who(BaseModel):
    """Who makes the request."""

    name: str
    role: Role
    person: int | None = Field(description="none for tokens and for this machine while nobody has a password")
    districts: list[str] = Field(description="the only districts whose cases you see; empty for all")
    departments: list[str] = Field(description="the departments for which you work")
    single_sign_on: bool = Field(description="whether you come by the city's single sign-on")
    alone: bool = Field(description="nobody can sign in yet: whoever reads may acknowledge, by a name that they give")
    csrf: str | None = Field(description="for the header X-CSRF-Token, with a session's cookie")


class SingleSignOnOut(BaseModel):
    """Whether people may sign in by the city's single sign-on."""

    title: Title | None = Field(description="what it is called; null if there is none")


class SessionOut(BaseModel):
    """A browser in which you are signed in."""

    id: str
    created: str
    expires: str
    address: str
    agent: str = Field(description="what the browser calls itself")
    this: bool = Field(description="whether it is the one that asks")


class Sessions(BaseModel):
    """Your sessions, the newest first."""

    sessions: list[SessionOut]


class WhoseLink(BaseModel):
    """Whom a link is for."""

    name: str


class LinkUse(_Body):
    """A link, and the password that its holder chooses."""

    link: str = Field(min_length=1, max_length=200, examples=["what follows #link= in the link"])
    password: Annotated[_Password, Field(examples=["a long pass phrase"])]


class NewPassword(_Body):
    """The password that was, and the one that shall be."""

    old: Annotated[_Password, Field(examples=["a long pass phrase"])]
    new: Annotated[_Password, Field(examples=["another long pass phrase"])]


class PersonIn(_Body):
    """A new person."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "lin", "title": "林晓", "role": "department", "departments": ["water"]}]
        },
    )

    name: Name
    title: Text = Field(description="how the person is called")
    role: Role
    districts: Names = Field([], description="the only districts whose cases the person sees; empty for all")
    departments: Names = Field([], description="the departments for which the person works")


class PersonChange(_Body):
    """What shall change; the rest stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "dispatcher", "districts": ["old-town"]}]})

    title: Text | None = None
    role: Role | None = None
    districts: Names | None = None
    departments: Names | None = None
    disabled: bool | None = Field(None, strict=True)


class PersonOut(BaseModel):
    """A person."""

    id: int
    name: str
    title: str
    role: Role
    districts: list[str]
    departments: list[str]
    disabled: bool
    active: bool = Field(description="whether they can sign in: by a password that they chose, or by single sign-on")
    single_sign_on: bool = Field(description="whether they come by the city's single sign-on")
    created: str
    last_sign_in: str | None


class Persons(BaseModel):
    """All people."""

    people: list[PersonOut]


class PersonLink(BaseModel):
    """A person, and the link by which they choose their password; it works once, for three days."""

    person: PersonOut
    link: str = Field(description="the part behind the view's own address", examples=["/#link=…"])


class TokenIn(_Body):
    """A new API token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"label": "Grafana", "scope": "read", "days": 90}]})

    label: Text
    scope: Literal["read", "write"] = "read"
    days: int = Field(90, ge=1, le=366, description="until it expires")


class TokenOut(BaseModel):
    """An API token; the token itself is not kept."""

    id: int
    label: str
    scope: Literal["read", "write"]
    created: str
    expires: str
    expired: bool


class Tokens(BaseModel):
    """Your API tokens."""

    tokens: list[TokenOut]


class NewToken(BaseModel):
    """A new API token, shown this once."""

    token: str
    about: TokenOut


class AuditLine(BaseModel):
    """Who did what."""

    id: int
    time: str
    who: str
    address: str
    action: str
    about: str
    detail: dict[str, object]


class AuditTrail(BaseModel):
    """Lines of the audit trail, newest first."""

    audit: list[AuditLine]
