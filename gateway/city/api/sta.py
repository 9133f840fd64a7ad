"""OGC SensorThings 1.1 below ``/sta/v1.1``, for clients that speak the standard; read only."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.city.api.context import Reader
from gateway.city.problems import ProblemError
from gateway.city.sta import options as query
from gateway.city.sta.answers import Answers, MissingError
from gateway.city.sta.entities import OBSERVATIONS, SETS
from gateway.city.sta.options import OptionError

ROOT = "/sta/v1.1"
router = APIRouter(prefix=ROOT, tags=["SensorThings"])

_OPTIONS = {
    "$filter": "a condition",
    "$expand": "what to put beside, nested with / or with options in parentheses",
    "$orderby": "properties, each asc or desc",
    "$select": "properties to show",
    "$top": f"most entities of an answer; {query.TOP} when absent, {query.MOST} at most",
    "$skip": "entities to leave out first",
    "$count": "true: how many there are in all, as @iot.count",
    "$skiptoken": "where a page of observations begins; for next links alone",
}
_FORMS: dict[str, dict[str, Any]] = {
    "$top": {"pattern": "^[0-9]{1,9}$"},
    "$skip": {"pattern": "^[0-9]{1,9}$"},
    "$count": {"enum": ["true", "false"]},
}
_BESIDE = ("$expand", "$select")
"""The options of one entity."""
_EXAMPLES = {"$filter": "properties/kind eq 'air'", "$orderby": "name desc", "$select": "name,properties"}
_EXAMPLES |= {"$expand": "Datastreams($top=3)", "$top": "10", "$skip": "0", "$count": "true"}
_EXAMPLES_OF = {
    "Locations": {"$expand": "Things"},
    "Datastreams": {"$expand": "Thing,ObservedProperty", "$filter": "ObservedProperty/name eq 'PM2.5'"},
    OBSERVATIONS: {
        "$filter": "phenomenonTime gt 2026-11-23T06:00:00Z and result gt 20",
        "$expand": "Datastream",
        "$orderby": "phenomenonTime desc",
        "$select": "phenomenonTime,result",
    },
    "FeaturesOfInterest": {"$expand": "Observations($top=3)"},
}
_IDS = {
    "Datastreams": "'air:old-town:air-03:pm25'",
    "ObservedProperties": "'air:pm25'",
    OBSERVATIONS: "'air:old-town:air-03:pm25@1795413932000'",
}


class ServiceOut(BaseModel):
    """What there is."""

    value: list[dict[str, str]] = Field(examples=[[{"name": "Things", "url": "http://127.0.0.1:8080/sta/v1.1/Things"}]])
    serverSettings: dict[str, list[str]]  # noqa: N815 - called so by the standard


class EntityOut(BaseModel):
    """An entity with its properties, its links, and what was expanded."""

    model_config = ConfigDict(extra="allow")
    id: str | None = Field(
        None,
        alias="@iot.id",
        description="absent when not selected",
        examples=["air:old-town:air-03:pm25@1795413932000"],
    )
    self_link: str | None = Field(None, alias="@iot.selfLink", description="absent when not selected")


class EntitiesOut(BaseModel):
    """A page of entities."""

    count: int | None = Field(None, alias="@iot.count", description="of all pages, when $count asks for it")
    next_link: str | None = Field(None, alias="@iot.nextLink", description="address of the next page, if there is one")
    value: list[EntityOut]


@router.get("")
async def service(here: Reader, request: Request) -> ServiceOut:
    """The sets of entities, and the parts of the standard that are there."""
    return ServiceOut.model_validate((await _answers(here, request)).service())


async def _at(here: Reader, request: Request) -> Response:
    answers = await _answers(here, request)
    try:
        found = await answers.at(request.scope["path"].removeprefix(f"{ROOT}/"), query.read(request.query_params))
    except OptionError as error:
        raise ProblemError(400, str(error)) from error
    except MissingError as error:
        raise ProblemError(404, f"{request.url.path}: {error}.") from error
    return PlainTextResponse(found) if isinstance(found, str) else JSONResponse(found)


async def _answers(here: Reader, request: Request) -> Answers:
    catalogue = here.view.catalogue(await here.view.snapshot())
    return Answers(here.view.store, catalogue, f"{request.base_url}".rstrip("/") + ROOT)


def _route(path: str, model: type[BaseModel] | None, name: str, text: str, parameters: list[dict[str, Any]]) -> None:
    content = {} if model is None else {"model": model}
    router.add_api_route(
        path,
        _at,
        name=name,
        description=text,
        responses={200: {"description": "found", **content}, 400: {}, 404: {}},
        response_class=JSONResponse,
        openapi_extra={"parameters": parameters},
    )


def _parameters(set_: str, names: Iterable[str] = _OPTIONS) -> list[dict[str, Any]]:
    examples = _EXAMPLES | _EXAMPLES_OF.get(set_, {})
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": _OPTIONS[name],
            "schema": {"type": "string", **_FORMS.get(name, {})},
            **({"example": examples[name]} if name in examples else {}),
        }
        for name in names
        if name != "$skiptoken" or set_ == OBSERVATIONS
    ]


def _in_path(name: str, text: str, example: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema, "example": example}


for _set in SETS:
    _id = _in_path("id", "the id in quotes", _IDS.get(_set, "'air:old-town:air-03'"))
    _route(f"/{_set}", EntitiesOut, _set, f"{_set}, a page of them.", _parameters(_set))
    _one = [_id, *_parameters(_set, _BESIDE)]
    _route(f"/{_set}({{id}})", EntityOut, f"one of {_set}", f"One of {_set}, by its id.", _one)
_route(
    "/{path:path}",
    None,
    "what is linked",
    "What is reached from an entity: its links, such as `Datastreams('air:old-town:air-03:pm25')/Observations`, and its"
    " properties, such as `Things('air:old-town:air-03')/name/$value`.",
    [
        _in_path("path", "links and properties", "Datastreams('air:old-town:air-03:pm25')/Observations"),
        *_parameters(OBSERVATIONS),
    ],
)
