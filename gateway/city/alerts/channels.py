"""Channels: alerts told to those who do not look at the page, by webhook, e-mail or MQTT.

What is to be told is in the book before anybody is told, in the transaction that changes the alert, and stays there
until the other side has taken it: a letter may come twice after a crash, never not at all. Each channel has its letters
in order; one that does not answer is tried again after 5 s, 10 s, 20 s … up to 10 minutes, for as long as its
``retry_for`` says.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import smtplib
import ssl
import time
from email.message import EmailMessage
from email.utils import formatdate
from typing import NamedTuple

import aiohttp
import aiomqtt

from gateway.city import view as city
from gateway.city.alerts.book import Book, Letter
from gateway.city.alerts.grouping import rank
from gateway.city.alerts.models import AlertOut, Kept
from gateway.city.alerts.wording import What, Wording
from gateway.city.store.base import StoreError
from gateway.city.view import View
from gateway.config import ChannelConfig

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 15.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 600.0
_PREFIX = "whsec_"


class _NotTakenError(Exception):
    """The other side did not take a letter; says why."""


class Told(NamedTuple):
    """What a channel's letter says."""

    id: str
    what: What
    alert: dict[str, object]
    headline: str
    text: str


class Channels:
    """Tells alerts.

    Args:
        configs: The channels.
        book: Where letters wait.
        view: What sites and quantities are called.
    """

    def __init__(self, configs: tuple[ChannelConfig, ...], book: Book, view: View) -> None:
        self._configs = configs
        self._book = book
        self._view = view
        self._tasks: list[asyncio.Task[None]] = []
        self._news = {config.name: asyncio.Event() for config in configs}
        self.problems = dict.fromkeys(self._news, "")
        """Of each channel, why its last letter was not taken; empty if it was."""

    @property
    def configs(self) -> tuple[ChannelConfig, ...]:
        """The channels."""
        return self._configs

    def start(self) -> None:
        """Begins to tell."""
        self._tasks = [asyncio.create_task(self._run(config)) for config in self._configs]

    async def close(self) -> None:
        """Ends; what was not taken waits in the book."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def letters(self, alert: Kept, out: AlertOut, what: What, now: int) -> list[Letter]:
        """What is to be told of an alert, to each channel that it is grave enough for.

        Args:
            alert: The alert.
            out: The same, as the API gives it.
            what: What has become of it.
            now: ms UTC.
        """
        letters = []
        for config in self._configs:
            if rank(alert.told or alert.severity) < rank(config.severity):
                continue
            said = Wording(self._view, config.language)
            told = Told(
                id=f"{alert.id}.{len(alert.revisions)}.{what}",
                what=what,
                alert=out.model_dump(mode="json"),
                headline=said.headline(alert, what),
                text="\n".join(said.lines(alert)),
            )
            letters.append(Letter(config.name, now, json.dumps(told._asdict(), ensure_ascii=False)))
        return letters

    def notify(self) -> None:
        """Says that there are new letters."""
        for news in self._news.values():
            news.set()

    async def _run(self, config: ChannelConfig) -> None:
        tries = 0
        while True:
            self._news[config.name].clear()
            try:
                found = await asyncio.to_thread(self._book.next_letter, config.name)
                if found is None:
                    await self._news[config.name].wait()
                    continue
                number, letter = found
                told = Told(**json.loads(letter.body))
                try:
                    await self._send(config, told, letter)
                    self.problems[config.name], tries = "", 0
                except _NotTakenError as error:
                    tries += 1
                    self.problems[config.name] = str(error)
                    late = city.now_ms() - letter.time > config.retry_for * 1000
                    if not late:
                        wait = min(_FIRST_WAIT_S * 2 ** (tries - 1), _LONGEST_WAIT_S)
                        _LOG.warning("channel %s: %s; next try in %.0f s", config.name, error, wait)
                        await asyncio.sleep(wait)
                        continue
                    _LOG.error("channel %s: gave up on '%s': %s", config.name, told.headline, error)
                    tries = 0
                await asyncio.to_thread(self._book.tear_up, number)
            except StoreError as error:
                _LOG.warning("channel %s waits: %s", config.name, error)
                await asyncio.sleep(_FIRST_WAIT_S)
            except Exception:  # noqa: BLE001 - one letter must not end all later ones
                _LOG.exception("channel %s failed", config.name)
                await asyncio.sleep(_FIRST_WAIT_S)

    async def _send(self, config: ChannelConfig, told: Told, letter: Letter) -> None:
        match config.type:
            case "webhook":
                await _post(config, told)
            case "email":
                await asyncio.to_thread(_mail, config, told, letter.time)
            case "mqtt":
                await _publish(config, told)


def body(told: Told) -> bytes:
    """What is posted and published: JSON of ``id``, ``what``, ``headline``, ``text`` and ``alert``."""
    return json.dumps(told._asdict(), ensure_ascii=False).encode()


def signature(secret: str, name: str, moment: int, content: bytes) -> str:
    """A webhook's signature, as Standard Webhooks 1.0 has it.

    Args:
        secret: As it is, or base64 after ``whsec_``.
        name: The message's id.
        moment: Seconds UTC.
        content: The body.
    """
    key = base64.b64decode(secret.removeprefix(_PREFIX)) if secret.startswith(_PREFIX) else secret.encode()
    signed = f"{name}.{moment}.".encode() + content
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


async def _post(config: ChannelConfig, told: Told) -> None:
    content, moment = body(told), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": told.id,
        "webhook-timestamp": str(moment),
    }
    if config.secret is not None:
        signed = signature(config.secret.get_secret_value(), told.id, moment, content)
        headers["webhook-signature"] = signed
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
            session.post(config.url or "", data=content, headers=headers, allow_redirects=False) as answer,
        ):
            if not answer.ok or answer.status >= 300:  # noqa: PLR2004 - a redirect takes nothing
                msg = f"the webhook answered {answer.status}"
                raise _NotTakenError(msg)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        msg = f"the webhook cannot be reached: {error or type(error).__name__}"
        raise _NotTakenError(msg) from error


def _mail(config: ChannelConfig, told: Told, moment: int) -> None:
    mail = EmailMessage()
    mail["Subject"] = " ".join(told.headline.split())
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.to)
    mail["Date"] = formatdate(moment / 1000, localtime=True)
    domain = config.sender.rpartition("@")[2].rstrip("> ") if config.sender else ""
    thread = f"<{told.alert['id']}@{domain}>"
    mail["Message-ID"] = thread if told.what == "begins" else f"<{told.id}@{domain}>"
    if told.what != "begins":
        mail["In-Reply-To"] = mail["References"] = thread
    mail.set_content(f"{told.headline}\n\n{told.text}\n\n{told.alert['since']}\n{told.alert['id']}\n")
    tls = ssl.create_default_context(cafile=config.tls_ca)
    host, port = config.host or "", config.port
    try:
        with (
            smtplib.SMTP_SSL(host, port or 465, timeout=_TIMEOUT_S, context=tls)
            if config.link == "tls"
            else smtplib.SMTP(host, port or (587 if config.link == "starttls" else 25), timeout=_TIMEOUT_S)
        ) as server:
            if config.link == "starttls":
                server.starttls(context=tls)
            if config.username is not None and config.password is not None:
                server.login(config.username, config.password.get_secret_value())
            refused = server.send_message(mail)
    except (smtplib.SMTPException, OSError) as error:
        msg = f"the mail server {host} did not take it: {error}"
        raise _NotTakenError(msg) from error
    if refused:
        _LOG.error("channel %s: refused for %s", config.name, ", ".join(refused))


async def _publish(config: ChannelConfig, told: Told) -> None:
    secure = None if config.link == "none" else ssl.create_default_context(cafile=config.tls_ca)
    try:
        async with aiomqtt.Client(
            config.host or "",
            config.port or (1883 if secure is None else 8883),
            username=config.username,
            password=None if config.password is None else config.password.get_secret_value(),
            tls_context=secure,
            timeout=_TIMEOUT_S,
        ) as client:
            await client.publish(config.topic or "", body(told), qos=1)
    except (aiomqtt.MqttError, OSError, TimeoutError) as error:
        msg = f"the broker {config.host} did not take it: {error}"
        raise _NotTakenError(msg) from error
