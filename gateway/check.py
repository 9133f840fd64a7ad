"""``citygate check``: is this configuration right, and what does it amount to."""

import json
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from gateway.config import CityConfig, ConfigError, GatewayConfig, RulesFile, load, masked
from gateway.edge.decode import Decoder
from gateway.edge.overrides import effective
from gateway.edge.readings import Channels
from sensors import kinds


def check(path: Path, *, as_json: bool) -> str:
    """Validates a gateway's or a city view's configuration.

    Args:
        path: The file; one with ``[gateway]`` is a gateway's.
        as_json: JSON instead of TOML.

    Returns:
        The effective configuration, secrets masked; and, where there are overrides, the limits in effect by them: under
        ``effective`` in JSON, as comments in TOML, which so can be loaded again.

    Raises:
        ConfigError: With file, key path, value and the nearest valid key.
        SourceError: If a source names an unknown kind or unit, an override an unknown kind or quantity.
        KindError: If a file of kinds cannot be used.
    """
    limits: dict[str, Any] = {}
    if not _is_city(path):
        config = load(path, GatewayConfig)
        Decoder.of(config, Channels())
        tree = masked(config)
        if config.override:
            limits = {"effective": list(effective(config.override, kinds.known(config.gateway.kinds_dir)))}
    else:
        city = load(path, CityConfig)
        tree = masked(city)
        if city.alerts.rules is not None:
            load(city.alerts.rules, RulesFile, {})
    tree, limits = _without_none(tree), _without_none(limits)
    if as_json:
        return json.dumps(tree | limits, indent=2, ensure_ascii=False)
    text = tomli_w.dumps(tree).rstrip()
    if limits:
        lines = tomli_w.dumps(limits).rstrip().splitlines()
        text += "\n\n# The limits that the overrides result in:\n" + "\n".join(f"# {line}".rstrip() for line in lines)
    return text


def _is_city(path: Path) -> bool:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False  # load() says what is wrong
    if "gateway" not in data and not data.keys() & {"server", "access", "store", "map"}:
        msg = f"{path}: neither a gateway's configuration (it has [gateway]) nor a city view's ([server], [store], …)"
        raise ConfigError(msg)
    return "gateway" not in data


def _without_none(value: Any) -> Any:  # noqa: ANN401 - a tree of TOML values; TOML has no null
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
