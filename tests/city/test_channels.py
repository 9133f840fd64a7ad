"""Channels: alerts told by webhook and e-mail, to real servers on this machine."""

import asyncio
import base64
import email
import email.policy
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.city.alerts import channels
from gateway.config import ChannelConfig, CityConfig, ConfigError, load, masked
from tests.city.conftest import client_of, running, write
from tests.city.test_alerts import MINUTE, config, event, wind

SECRET = "whsec_" + base64.b64encode(b"a key of the tests").decode()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_FIRST_WAIT_S", 0.01)


@pytest.fixture
def now() -> int:
    return time.time_ns() // 1_000_000


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what the other side has seen
            await asyncio.sleep(0.01)


@dataclass
class Hook:
    """A webhook's other side: what it got, and what it answers."""

    answers: list[int]
    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook([])
    app = web.Application()
    app.router.add_post("/alerts", hook.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.port = runner.addresses[0][1]
    yield hook
    await runner.cleanup()


def settings(tmp_path: Path, *its: dict[str, object], quiet: str = "0s") -> CityConfig:
    whole = config(tmp_path)
    alerts = whole.alerts.model_validate({"quiet": quiet})
    return whole.model_copy(update={"alerts": alerts, "channel": tuple(map(ChannelConfig.model_validate, its))})


def webhook(hook: Hook, **more: object) -> dict[str, object]:
    return {"name": "desk", "type": "webhook", "url": f"http://127.0.0.1:{hook.port}/alerts", "secret": SECRET, **more}


async def test_a_webhook_is_told_signed_again_until_it_takes_it_and_once_each(
    tmp_path: Path, hook: Hook, now: int
) -> None:
    hook.answers = [500, 302]
    async with running(settings(tmp_path, webhook(hook))) as app, client_of(app) as client:
        await write(client, wind(now - 6 * MINUTE, 0), event("middle", now - 5 * MINUTE))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) == 3)
        await write(client, event("west", now - 4 * MINUTE))  # the same alert, as grave: nobody is told again
        await client.get("/api/v1/alerts")
        await write(client, event("west", now - 3 * MINUTE, severity="red", since=now - 4 * MINUTE))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) == 4)
        for site, since in (("west", now - 4 * MINUTE), ("middle", now - 5 * MINUTE)):
            await write(client, event(site, now - MINUTE, severity="none", since=since))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) == 5)
        state = (await client.get("/api/v1/channels")).json()["channels"]
    assert [told["what"] for told in hook.told] == ["begins", "begins", "begins", "graver", "ended"]
    assert len({told["id"] for told in hook.told}) == 3
    first = hook.told[0]
    assert first["headline"] == "new alert: Air pollution (yellow) \N{EN DASH} middle"
    assert "Likely sources: Works 6.7 km" in first["text"]
    assert first["alert"]["sources"][0]["id"] == "works"
    assert hook.told[3]["headline"].startswith("alert is graver: Air pollution (red)")
    for headers, content in hook.got:
        named = {name.lower(): value for name, value in headers.items()}
        signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + content
        right = base64.b64encode(hmac.digest(b"a key of the tests", signed, hashlib.sha256)).decode()
        assert named["webhook-signature"] == f"v1,{right}"
        assert abs(int(named["webhook-timestamp"]) - time.time()) < 60
    assert state == [{"name": "desk", "type": "webhook", "severity": "blue", "waiting": 0, "problem": ""}]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # the example of the specification's reference libraries (standard-webhooks, README)
    secret, name, moment = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
    found = channels.signature(secret, name, moment, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_what_nobody_took_is_told_after_a_restart(tmp_path: Path, hook: Hook, now: int) -> None:
    its = settings(tmp_path, webhook(hook))
    hook.answers = [503] * 1000
    async with running(its) as app, client_of(app) as client:
        await write(client, event("middle", now))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) > 1)
        (state,) = (await client.get("/api/v1/channels")).json()["channels"]
        assert (state["waiting"], state["problem"]) == (1, "the webhook answered 503")
    hook.answers, hook.got = [], []
    async with running(its) as app, client_of(app) as client:
        await until(lambda: len(hook.got) == 1)
        assert hook.told[0]["what"] == "begins"
        assert (await client.get("/api/v1/channels")).json()["channels"][0]["waiting"] in {0, 1}


async def test_a_flapping_alert_is_told_once_and_mild_ones_only_to_who_wants_them(
    tmp_path: Path, hook: Hook, now: int
) -> None:
    its = settings(tmp_path, webhook(hook), webhook(hook, name="chief", severity="red", language="zh"), quiet="10m")
    async with running(its) as app, client_of(app) as client:
        for number in range(3):
            began = now - (9 - 3 * number) * MINUTE
            await write(client, event("middle", began))
            await client.get("/api/v1/alerts")
            await write(client, event("middle", began + MINUTE, severity="none", since=began))
            await client.get("/api/v1/alerts")
        await write(client, event("west", now, quantity="laeq", kind="noise", severity="red"))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) == 3)
    assert sorted((told["what"], told["alert"]["cause"]) for told in hook.told) == [
        ("begins", "air"),
        ("begins", "noise.laeq"),
        ("begins", "noise.laeq"),
    ]
    assert any(told["headline"].startswith("新预警: ") for told in hook.told)


async def test_a_letter_that_is_never_taken_is_given_up(tmp_path: Path, hook: Hook, now: int) -> None:
    hook.answers = [404] * 3
    its = settings(tmp_path, webhook(hook, retry_for="1ms"))
    async with running(its) as app, client_of(app) as client:
        await write(client, event("middle", now))
        await client.get("/api/v1/alerts")
        await until(lambda: len(hook.got) > 0)
        async with asyncio.timeout(20):
            while (await client.get("/api/v1/channels")).json()["channels"][0]["waiting"]:  # noqa: ASYNC110 - on disk
                await asyncio.sleep(0.01)


@dataclass
class MailServer:
    """Speaks as much SMTP (RFC 5321) as takes a mail."""

    mails: list[bytes] = field(default_factory=list)
    sessions: list[list[str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said: list[str] = []
        self.sessions.append(said)
        writer.write(b"220 tests\r\n")
        while line := (await reader.readline()).decode().strip():
            said.append(line)
            match line.split()[0].upper():
                case "EHLO":
                    writer.write(b"250-tests\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n")
                case "AUTH":
                    writer.write(b"235 yes\r\n")
                case "DATA":
                    writer.write(b"354 go on\r\n")
                    self.mails.append((await reader.readuntil(b"\r\n.\r\n")).removesuffix(b".\r\n"))
                    writer.write(b"250 taken\r\n")
                case "QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 fine\r\n")
            await writer.drain()
        writer.close()


async def test_a_mail_is_sent_in_its_language_and_what_follows_is_in_its_thread(tmp_path: Path, now: int) -> None:
    post = MailServer()
    server = await asyncio.start_server(post.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "password").write_text("secret\n")
    its = settings(
        tmp_path,
        {
            "name": "mail",
            "type": "email",
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "username": "city",
            "password_file": tmp_path / "password",
            "sender": "City <city@example.org>",
            "to": ["desk@example.org", "chief@example.org"],
            "language": "ko",
        },
    )
    async with running(its) as app, client_of(app) as client:
        await write(client, event("middle", now - MINUTE))
        await client.get("/api/v1/alerts")
        await write(client, event("middle", now, severity="red", since=now - MINUTE))
        await client.get("/api/v1/alerts")
        await until(lambda: len(post.mails) == 2)
    server.close()
    first, second = (email.message_from_bytes(mail, policy=email.policy.default) for mail in post.mails)
    assert first["Subject"] == "새 경보: 대기 오염 (노랑) \N{EN DASH} middle"
    assert (first["From"], first["To"]) == ("City <city@example.org>", "desk@example.org, chief@example.org")
    assert "초미세먼지" in first.get_content()
    assert second["Subject"].startswith("경보 격상")
    assert second["In-Reply-To"] == first["Message-ID"] != second["Message-ID"]
    given = base64.b64encode(b"\0city\0secret").decode()
    assert f"AUTH PLAIN {given}" in post.sessions[0]
    assert [line for line in post.sessions[0] if line.startswith("rcpt")] == [
        "rcpt TO:<desk@example.org>",
        "rcpt TO:<chief@example.org>",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('type = "webhook"', "channel[0]: a channel of type 'webhook' needs 'url'"),
        ('type = "email"\nhost = "h"\nsender = "a@b"', "needs 'to'"),
        ('type = "mqtt"\nhost = "h"\ntopic = "t"\ntls = "starttls"', "no 'starttls'"),
        ('type = "mqtt"\nhost = "h"\ntopic = "t/#"', "channel[0].topic"),
        ('type = "email"\nhost = "h"\nsender = "a@b"\nto = ["a@b\\nBcc: c@d"]', "channel[0].to[0]"),
        ('type = "webhook"\nurl = "http://h"\nsecret_file = "none"', "secret_file: cannot read"),
        (
            'type = "webhook"\nurl = "http://h"\n[[channel]]\nname = "c"\ntype = "webhook"\nurl = "http://h"',
            "two channels",
        ),
    ],
)
def test_a_channel_that_cannot_work_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "city.toml"
    path.write_text(f'[[channel]]\nname = "c"\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        load(path, CityConfig, {})
    assert says in str(caught.value)


def test_secrets_of_channels_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "city.toml"
    (tmp_path / "key").write_text("open sesame")
    path.write_text('[[channel]]\nname = "c"\ntype = "webhook"\nurl = "http://h"\nsecret_file = "key"\n')
    city = load(path, CityConfig, {})
    assert city.channel[0].secret is not None
    assert city.channel[0].secret.get_secret_value() == "open sesame"
    assert "open sesame" not in f"{masked(city)}{city!r}"
