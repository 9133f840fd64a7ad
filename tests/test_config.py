"""A configuration either works or says what to change."""

import re
from pathlib import Path

import pytest

from gateway.check import check
from gateway.config import CityConfig, ConfigError, GatewayConfig, load, masked
from gateway.edge.source import SourceError

MINIMAL = '[gateway]\nid = "gw"\n[[output]]\nurl = "http://127.0.0.1:8086"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_minimal_configuration_has_sane_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL), GatewayConfig, {})
    assert config.client_id == "citygate-gw"
    assert config.source[0].topic == "city/{site}/{kind}/{sensor}"
    assert config.spool_path == tmp_path / "data" / "spool.db"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (MINIMAL + "[mqtt]\nhots = 'x'\n", ["gateway.toml", "mqtt.hots", "did you mean 'host'"]),
        (MINIMAL + "[mqtt]\nport = 99999\n", ["mqtt.port = 99999", "65535"]),
        (MINIMAL + "[mqtt]\nkeep_alive = 60\n", ["mqtt.keep_alive = 60", "'90s'"]),
        (MINIMAL + "[spool]\nmax_bytes = '5 parsecs'\n", ["spool.max_bytes", "512MiB"]),
        (MINIMAL + "[mqtt]\npassword_file = 'none'\n", ["mqtt", "password_file", "No such file"]),
        ("[gateway]\nid = 'gw'\n", ["output: missing", "[[output]]"]),
        (MINIMAL.replace("http", "ftp"), ["output[0].url", "ftp://"]),
        ("[gateway\n", ["not valid TOML", "line 1"]),
        (MINIMAL + "[[source]]\ntopic = 'a/{sensor}'\n", ["source[0]", "{site}", "set 'site'"]),
        (MINIMAL + "[[output]]\nurl = 'http://h'\n", ["[[output]] names must differ", "influxdb"]),
    ],
)
def test_a_mistake_names_file_key_value_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), GatewayConfig, {})
    for part in ["gateway.toml", *parts]:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read"):
        load(tmp_path / "nowhere.toml", GatewayConfig, {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {
        "CITYGATE_MQTT__PORT": "1999",
        "CITYGATE_MQTT__TLS": "true",
        "CITYGATE_OUTPUT__0__TOKEN": "12345",
        "CITYGATE_SERVER__PORT": "80",
        "OTHER": "x",
    }
    config = load(write(tmp_path, MINIMAL), GatewayConfig, environ)
    assert (config.mqtt.port, config.mqtt.tls) == (1999, True)
    assert config.output[0].token is not None
    assert config.output[0].token.get_secret_value() == "12345"


def test_secrets_come_from_files_and_are_never_printed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame-open\n", "ascii")
    path = write(tmp_path, MINIMAL + "token_file = 'token'\n[mqtt]\npassword = 'hunter2'\n")
    config = load(path, GatewayConfig, {})
    assert config.output[0].token is not None
    assert config.output[0].token.get_secret_value() == "sesame-open"
    for text in (repr(config), str(masked(config)), check(path, as_json=False), check(path, as_json=True)):
        assert "sesame-open" not in text
        assert "hunter2" not in text
    assert "********" in check(path, as_json=False)


def test_a_wrong_secret_is_not_shown_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, MINIMAL + "[mqtt]\npassword = ['hunter2']\n"), GatewayConfig, {})
    assert "hunter2" not in str(caught.value)
    assert "mqtt.password" in str(caught.value)


def test_a_systemd_credential_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "token").write_text("from-systemd", "ascii")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    config = load(write(tmp_path, MINIMAL + "token_file = 'token'\n"), GatewayConfig, {})
    assert config.output[0].token is not None
    assert config.output[0].token.get_secret_value() == "from-systemd"


def test_check_prints_a_configuration_that_loads_again(tmp_path: Path) -> None:
    printed = check(write(tmp_path, MINIMAL), as_json=False)
    again = load(write(tmp_path, printed), GatewayConfig, {})
    assert again == load(write(tmp_path, MINIMAL), GatewayConfig, {})


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("x/#/y", "'#' stands for all further levels, so it must be the last one"),
        ("x/{sit}", "'{sit}' must be a whole level"),
        ("x/a{site}", "'a{site}' must be a whole level"),
        ("x/y+", "'y+' must be a whole level"),
        ("{site}/{kind}/{sensor}/{site}", "it has {site} twice"),
        ("", "it is empty"),
    ],
)
@pytest.mark.parametrize("section", ["source", "discover"])
def test_a_topic_that_no_broker_and_no_message_fits_is_refused(
    tmp_path: Path, section: str, topic: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        load(write(tmp_path, f"{MINIMAL}[[{section}]]\ntopic = '{topic}'\n"), GatewayConfig, {})
    assert f"{section}[0].topic" in str(caught.value)


def test_check_finds_a_unit_that_measures_something_else(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"source 'city': units\.pm25: cannot convert 'kPa'"):
        check(write(tmp_path, MINIMAL + "[[source]]\nunits = { pm25 = 'kPa' }\n"), as_json=False)


def test_check_finds_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"unknown kind 'airr'; did you mean 'air'"):
        check(write(tmp_path, MINIMAL + "[[source]]\nkind = 'airr'\n"), as_json=False)


def test_check_knows_a_city_view(tmp_path: Path) -> None:
    assert "retention" in check(write(tmp_path, "[server]\nport = 8081\n"), as_json=False)
    with pytest.raises(ConfigError, match="neither"):
        check(write(tmp_path, "[servre]\nport = 8081\n"), as_json=False)
    with pytest.raises(ConfigError, match=r"store\.tipe.*did you mean 'type'"):
        load(write(tmp_path, "[store]\ntipe = 'embedded'\n"), CityConfig, {})


def test_a_sender_cannot_be_checked_where_messages_have_no_properties(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        '[gateway]\nid = "gw"\n[mqtt]\nprotocol = "3.1.1"\n[[source]]\nsender = "username"\n'
        '[[output]]\nurl = "http://127.0.0.1:8086"\n',
        "utf-8",
    )
    with pytest.raises(ConfigError, match="no user properties"):
        load(path, GatewayConfig, {})
