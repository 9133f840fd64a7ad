#!/usr/bin/env python3
"""Makes the secrets of a site: at the first start of the containers, or by hand on a device.

``secrets`` generates what is missing below a folder and changes nothing that is there::

    broker/passwords         accounts of the MQTT broker, hashed
    broker/mosquitto_sub     options of the broker's own health check
    gateway/mqtt-password    the gateway's password at the broker
    city/read-token          what a reader types into the city view
    city/write-token         what a gateway needs to write into the city view's embedded store
    influxdb/admin-password  InfluxDB's first user
    influxdb/operator-token  InfluxDB's first token; no service but InfluxDB and ``tokens`` ever sees it
    operator/sensor-password the shared account of the sensors

``tokens`` asks InfluxDB 2 for two tokens with no more rights than needed, when they are missing::

    gateway/influxdb-token   may write one bucket
    city/influxdb-token      may read one bucket

``show`` prints what people need to know. Files are 0400 and belong to the service that reads them. To replace a secret,
delete its file and run the script again. Nothing but the standard library, for the script runs on a bare device.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pwd
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GENERATED = (
    "gateway/mqtt-password",
    "city/read-token",
    "city/write-token",
    "influxdb/admin-password",
    "influxdb/operator-token",
    "operator/sensor-password",
)
ROUNDS = 101  # mosquitto_passwd's own; the passwords carry 256 random bits, so that stretching adds nothing


class ProvisionError(Exception):
    """What went wrong, and what to do."""


class Secrets:
    """The folder of secrets.

    Args:
        root: The folder.
        owners: User id for each folder below it; others belong to who runs the script.
    """

    def __init__(self, root: Path, owners: Mapping[str, int]) -> None:
        """Nothing is touched before the first write."""
        self._root = root
        self._owners = owners

    def read(self, name: str) -> str | None:
        """The secret, or None where there is none."""
        path = self._root / name
        try:
            return path.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}. Run this as root"
            raise ProvisionError(msg) from error

    def write(self, name: str, text: str) -> None:
        """Puts a secret in place, readable by its service alone; a power cut leaves the old one or the new one."""
        path = self._root / name
        owner = self._owners.get(path.parent.name, os.geteuid())
        fresh = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            if owner != os.geteuid():
                os.chown(fresh, owner, -1)
            self._protect(path.parent, owner)
            fresh.replace(path)
        except OSError as error:
            msg = f"cannot write {path}: {error.strerror}. Run this as root"
            raise ProvisionError(msg) from error
        _say(f"wrote {path}")

    @staticmethod
    def _protect(folder: Path, owner: int) -> None:
        folder.chmod(0o700)
        if folder.stat().st_uid != owner:
            os.chown(folder, owner, -1)


def mosquitto_hash(password: str, salt: bytes, rounds: int = ROUNDS) -> str:
    """A password as mosquitto 2 stores it: PBKDF2 with SHA-512."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches(password: str, stored: str) -> bool:
    """Whether a line of mosquitto's password file was made of this password."""
    try:
        _, kind, rounds, salt, _ = stored.split("$")
        fresh = mosquitto_hash(password, base64.b64decode(salt), int(rounds))
    except ValueError:
        return False
    return kind == "7" and hmac.compare_digest(fresh, stored)


def generate(store: Secrets) -> None:
    """Makes every secret that is missing, and brings the broker's accounts in line with them."""
    for name in GENERATED:
        if store.read(name) is None:
            store.write(name, secrets.token_urlsafe(32))
    health = _health_password(store.read("broker/mosquitto_sub"))
    accounts = {
        "gateway": store.read("gateway/mqtt-password"),
        "sensor": store.read("operator/sensor-password"),
        "health": health,
    }
    present = store.read("broker/passwords") or ""
    lines = dict(line.split(":", 1) for line in present.splitlines() if ":" in line)
    for account, password in accounts.items():
        if password is not None and not matches(password, lines.get(account, "")):
            lines[account] = mosquitto_hash(password, secrets.token_bytes(12))
    wanted = "\n".join(f"{account}:{stored}" for account, stored in lines.items())
    if wanted != present:
        store.write("broker/passwords", wanted)
    options = f"-u health\n-P {health}"
    if store.read("broker/mosquitto_sub") != options:
        store.write("broker/mosquitto_sub", options)


def _health_password(options: str | None) -> str:
    for line in (options or "").splitlines():
        if line.startswith("-P "):
            return line.removeprefix("-P ")
    return secrets.token_hex(32)  # a token that begins with "-" would read as an option


def authorize(store: Secrets, url: str, bucket: str) -> None:
    """Makes the tokens of the gateway and of the city view, when they are missing.

    Raises:
        ProvisionError: There is no operator token, or InfluxDB cannot be reached, refuses it, or has no such bucket.
    """
    operator_token = store.read("influxdb/operator-token")
    if operator_token is None:
        msg = "influxdb/operator-token is missing: put InfluxDB's operator token there"
        raise ProvisionError(msg)
    wanted = {
        name: action
        for name, action in (("gateway/influxdb-token", "write"), ("city/influxdb-token", "read"))
        if store.read(name) is None
    }
    if not wanted:
        return
    query = urllib.parse.urlencode({"name": bucket})
    buckets = _influxdb(f"{url}/api/v2/buckets?{query}", operator_token).get("buckets", [])
    if not buckets:
        msg = f"InfluxDB at {url} has no bucket '{bucket}': create it, or name another with --bucket"
        raise ProvisionError(msg)
    bucket_id, organisation = buckets[0]["id"], buckets[0]["orgID"]
    for name, action in wanted.items():
        body = {
            "orgID": organisation,
            "description": f"citygate {name.split('/')[0]}: {action} {bucket}",
            "permissions": [
                {"action": action, "resource": {"type": "buckets", "id": bucket_id, "orgID": organisation}}
            ],
        }
        store.write(name, _influxdb(f"{url}/api/v2/authorizations", operator_token, body)["token"])


def _influxdb(url: str, token: str, body: object = None) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        msg = f"{url}: expected an address that starts with http:// or https://"
        raise ProvisionError(msg)
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Token {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the scheme was checked above
            content: dict[str, Any] = json.load(answer)
            return content
    except urllib.error.HTTPError as error:
        hint = "the operator token is not InfluxDB's" if error.code in {401, 403} else error.reason
        msg = f"{url}: InfluxDB answered {error.code}: {hint}"
        raise ProvisionError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{url}: no answer from InfluxDB: {error}"
        raise ProvisionError(msg) from error


def show(store: Secrets) -> None:
    """Prints what people type in."""
    for title, name in (
        ("City view, token of a reader", "city/read-token"),
        ("MQTT, account 'sensor'", "operator/sensor-password"),
        ("InfluxDB, user 'admin'", "influxdb/admin-password"),
    ):
        _say(f"{title}: {store.read(name) or 'not made yet: run secrets'}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _owner(text: str) -> tuple[str, int]:
    folder, _, user = text.partition("=")
    if user.isdigit():
        return folder, int(user)
    try:
        return folder, pwd.getpwnam(user).pw_uid
    except KeyError as error:
        msg = f"expected FOLDER=USER with a user of this machine or a number, not '{text}'"
        raise argparse.ArgumentTypeError(msg) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=("secrets", "tokens", "show"))
    parser.add_argument("--root", type=Path, default=Path("/etc/citygate/credentials"), help="folder of the secrets")
    parser.add_argument(
        "--owner", type=_owner, action="append", default=[], metavar="FOLDER=USER", help="whose a folder's secrets are"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8086", help="InfluxDB (tokens)")
    parser.add_argument("--bucket", default="city", help="bucket of InfluxDB (tokens)")
    options = parser.parse_args(arguments)
    store = Secrets(options.root, dict(options.owner))
    try:
        match options.command:
            case "secrets":
                generate(store)
            case "tokens":
                authorize(store, options.url.rstrip("/"), options.bucket)
            case _:
                show(store)
    except ProvisionError as error:
        sys.stderr.write(f"provision: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
