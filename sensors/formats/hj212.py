"""HJ 212, the telemetry of China's pollution sources: frames ``##`` length, segment, CRC, as of 2017.

Read leniently where stations are loose: no request number, spaces, a CRC in lower case, no line end, several frames in
one payload, Chinese text in UTF-8 or GBK, codes of 2005. Of HJ 212-2025 the plain form is read, whose version is in
``Flag`` and whose length counts the bytes of UTF-8; encrypted content is not. Length and CRC are checked, and a refusal
names its byte. A bad frame never costs its neighbours.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from sensors.formats import Answer, Declared, Decoded, Format, Options, PayloadError, Quality, Sample
from sensors.formats.objects import printable, written

_QUANTITIES = {
    "a01001": "temperature",
    "a01002": "humidity",
    "a01006": "pressure",
    "a01007": "wind_speed",
    "a01008": "wind_direction",
    "a05024": "o3",
    "a21004": "no2",
    "a21005": "co",
    "a21026": "so2",
    "a34002": "pm10",
    "a34004": "pm25",
    "w00000": "flow",
    "w01001": "ph",
    "w01009": "dissolved_oxygen",
    "w01010": "temperature",
    "w01014": "conductivity",
    "w01018": "cod",
    "w01019": "codmn",
    "w21003": "nh3n",
    "w21011": "tp",
    "la": "laeq",
    "leq": "laeq",
    "ld": "ld",
    "ln": "ln",
    # of 2005
    "b01": "flow",
    "001": "ph",
    "011": "cod",
    "060": "nh3n",
}
"""Code of a factor, in lower case → quantity."""
_INSTANTANEOUS = "la"  # gives way to the equivalent level, where a frame has both
_DATA = {"2011", "2031", "2051", "2061"}  # real time, day, minute, hour
_FLAGS = {
    "N": None,
    "D": Quality.BAD,
    "B": Quality.BAD,
    "T": Quality.OVER_RANGE,
    "F": Quality.SUSPECT,
    "M": Quality.SUSPECT,
    "C": Quality.SUSPECT,
    "S": Quality.SUSPECT,
}
"""Data flags of the standard: normal, device fault, broken line, over range, stopped, maintained, calibrated, set."""
_WORST = (Quality.BAD, Quality.OVER_RANGE, Quality.SUSPECT)
_FLAG, _TIME, _PASSED = -1, -2, -3  # in place of a pool
_REQUIRED = {"QN", "ST", "CN", "PW", "MN"}
_MOST_KEYS = 4096
_BLANK = b" \t\r\n\0"
_ANSWER = "9014"
_NO_VERSION = 0b11  # of Flag: acknowledge, packet numbers; the version is above
_STAMP = re.compile(r"(\d{8})(\d\d)(\d\d)(\d\d)(\d{0,3})", re.ASCII)
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")


class Hj212Options(Options):
    """Options of ``hj212``."""

    crc: Literal["require", "ignore"] = Field("require", description="whether a frame with a wrong CRC is refused")
    value: tuple[str, ...] = Field(
        ("Rtd", "Avg", "Data"),
        min_length=1,
        description="attributes that are a factor's value; the first that a frame has counts",
    )
    utc_offset: float = Field(8.0, ge=-12, le=14, description="hours from UTC to the time of the stations")
    answer_topic: str | None = Field(
        None,
        description="topic of the answer 9014 to a frame that asks for one, with `{mn}` in place of the station; "
        "without it, nothing is answered",
    )

    @field_validator("answer_topic")
    @classmethod
    def _fills(cls, topic: str | None) -> str | None:
        if topic is not None and re.search(r"[{}+#]", topic.replace("{mn}", "")):
            msg = f"'{topic}': a topic to publish to, in which only {{mn}} is replaced"
            raise ValueError(msg)
        return topic


class Hj212(Format):
    """Reads payloads of one or more frames."""

    names_sensors = True
    options = Hj212Options
    units: ClassVar[Mapping[str, str]] = {
        "pressure": "kPa",
        "so2": "mg/m³",
        "no2": "mg/m³",
        "o3": "mg/m³",
        "co": "mg/m³",
        "flow": "L/s",
    }

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = Hj212Options.model_validate(declared.options)
        self._checks = options.crc == "require"
        self._answer_topic = options.answer_topic
        self._ahead = options.utc_offset * 3600
        self._ranks = {attribute.lower(): rank for rank, attribute in enumerate(options.value)}
        self._roles: dict[str, tuple[int, str, str]] = {}  # key → pool, quantity (of a flag: factor), code
        self._flagged: dict[str, set[str]] = {}  # factor, or factor-attribute → quantities
        self._normal: set[str] = set()  # flags that say that all is well, as they came
        self._day = ("", 0.0)
        self._moment = ("", math.nan)

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - frames say all themselves
        """Reads one payload.

        Raises:
            PayloadError: If no frame can be read; names the byte, what was expected and what was found.
        """
        if len(self._roles) > _MOST_KEYS:
            self._roles.clear()
            self._flagged.clear()
            self._normal.clear()
        samples: list[Sample] = []
        answers: list[Answer] = []
        problems: list[str] = []
        loose: dict[str, None] = {}
        position, frames, end = 0, 0, len(payload)
        while position < end:
            start = payload.find(b"##", position)
            if rest := payload[position : start if start >= 0 else end].strip(_BLANK):
                problems.append(f"byte {position}: expected '##', found {_shown(rest)}")
            if start < 0:
                break
            try:
                position = self._frame(payload, start, samples, answers, loose)
                frames += 1
            except PayloadError as error:
                problems.append(str(error))
                position = payload.find(b"##", start + 2)
                if position < 0:
                    break
        if samples:
            samples[0].problems += tuple(problems)
        elif problems or not frames:
            raise PayloadError(problems[0] if problems else f"byte {end}: expected '##', found the end")
        return Decoded(samples, tuple(answers), loose=tuple(loose))

    def _frame(
        self, payload: bytes, start: int, samples: list[Sample], answers: list[Answer], loose: dict[str, None]
    ) -> int:
        """Reads the frame that starts here, and returns where the next one may."""
        first = start + 6
        digits = payload[start + 2 : first]
        if len(digits) < 4 or not digits.isdigit():  # noqa: PLR2004 - as the standard says
            msg = f"byte {start + 2}: expected the length in four digits, found {_shown(digits)}"
            raise PayloadError(msg)
        last = first + int(digits)
        segment = payload[first:last]
        sent = payload[last : last + 4]
        if not segment.endswith(b"&&") or len(segment) != last - first:
            raise PayloadError(_misfit(payload, start, int(digits)))
        if self._checks:
            expected = b"%04X" % crc(segment)
            if sent.upper() != expected:
                msg = f"byte {last}: expected the CRC {expected.decode()}, found {_shown(sent)}"
                raise PayloadError(msg)
        try:
            text = segment.decode()
        except UnicodeDecodeError:
            try:
                text = segment.decode("gb18030")
            except UnicodeDecodeError as error:
                msg = f"byte {first + error.start}: neither UTF-8 nor GBK: {_shown(segment[error.start :])}"
                raise PayloadError(msg) from error
        head, opened, content = text.partition("CP=&&")
        if not opened or not content.endswith("&&"):
            place = first + len(head.encode()) if opened else last
            msg = f"byte {place}: expected CP=&&…&&, found {_shown(segment[-12:])}"
            raise PayloadError(msg)
        said = _head(head, first)
        self._read(said, content[:-2], samples, answers)
        if not (said.keys() >= _REQUIRED and sent.isupper() and b" " not in segment):
            loose |= dict.fromkeys(_loose(said, text, sent))
        return last + 4 if self._checks or _HEX.fullmatch(sent) else last

    def _read(self, head: Mapping[str, str], content: str, samples: list[Sample], answers: list[Answer]) -> None:
        command = head.get("CN")
        if command is None:
            msg = f"CN: expected a command, found only {', '.join(map(printable, head)) or 'nothing'}"
            raise PayloadError(msg)
        if command not in _DATA:
            return
        parts = [content] if content.count("DataTime=") <= 1 else re.split(r"(?=DataTime=)", content)
        found = [sample for part in parts if (sample := self._sample(part, head)) is not None]
        if found and self._answer_topic is not None:
            answers += self._answer(head)
        samples += found

    def _sample(self, content: str, head: Mapping[str, str]) -> Sample | None:  # noqa: C901 - one loop, and it is hot
        roles, normal = self._roles, self._normal
        pools: list[dict[str, float]] = [{} for _ in range(len(self._ranks) + 2)]
        flags: list[tuple[str, str]] = []
        problems: list[str] = []
        moment = ""
        odd = "_" in content or not content.isascii()  # what Python takes for a number, and nobody else
        for item in content.replace(";", ",").split(","):
            if item in normal:
                continue
            key, equals, text = item.partition("=")
            pool, name, code = roles.get(key) or self._role(key)
            if pool >= 0:
                try:
                    value = written(text) if odd else float(text)
                except ValueError:
                    if text.strip() or not equals:
                        problems.append(f"{printable(key.strip())}: expected a number, not {text[:60]!r}")
                        continue
                    value = math.nan
                values = pools[pool]
                values[code if name in values else name] = value
            elif pool == _FLAG:
                if text == "N":
                    normal.add(item)
                else:
                    flags.append((name, text))
            elif pool == _TIME:
                moment = text
            elif not equals and key.strip():
                problems.append(f"CP: expected key=value, found {printable(key)!r}")
        values = _joined(pools, problems)
        if not values and not problems:
            return None
        quality = self._quality(flags, values) if flags else {}
        return Sample(self._time(moment, head), values, tuple(problems), head.get("MN"), quality=quality)

    def _role(self, key: str) -> tuple[int, str, str]:
        """What a key of the content stands for; found once for each."""
        plain = key.strip()
        code, dash, attribute = plain.partition("-")
        code, attribute = code.lower(), attribute.lower()
        known = _QUANTITIES.get(code) or (f"code_{code}" if code[:1].isdigit() else code)
        role = (_PASSED, "", "")
        if plain == "DataTime":
            role = (_TIME, "", "")
        elif attribute == "flag":
            role = (_FLAG, code, "")
        elif attribute.endswith("-flag"):
            role = (_FLAG, plain.lower().removesuffix("-flag"), "")
        elif dash and code:
            rank = self._ranks.get(attribute, -1)
            quantity = self.rename.get(plain)
            if quantity is not None:
                role = (len(self._ranks) + 1, quantity, quantity)
            elif rank >= 0:
                quantity = self.rename.get(plain.partition("-")[0])
                # an instantaneous level comes last
                role = (
                    len(self._ranks) if code == _INSTANTANEOUS and quantity is None else rank,
                    quantity or known,
                    f"code_{code}" if code[:1].isdigit() else code,
                )
            if role[1]:
                for factor in (code, f"{code}-{attribute}"):
                    self._flagged.setdefault(factor, set()).update(role[1:])
        self._roles[key] = role
        return role

    def _quality(self, flags: list[tuple[str, str]], values: Mapping[str, float]) -> dict[str, Quality]:
        quality: dict[str, Quality] = {}
        for factor, letters in flags:
            said = {_FLAGS.get(letter, Quality.SUSPECT) for letter in letters.strip().upper()}
            for name in self._flagged.get(factor, ()):
                worst = next((one for one in _WORST if one in said or one is quality.get(name)), None)
                if worst is not None and name in values:
                    quality[name] = worst
        return quality

    def _time(self, moment: str, head: Mapping[str, str]) -> float:
        """Seconds since 1970; NaN where neither the content nor the request number tells."""
        text = moment or head.get("QN", "")
        if text == self._moment[0]:  # stations report at the same moments
            return self._moment[1]
        if (parts := _STAMP.fullmatch(text.strip())) is not None:
            day, hour, minute, second, fraction = parts.groups()
            try:
                if day != self._day[0]:
                    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
                    self._day = day, midnight.timestamp() - self._ahead
                if hour < "24" and minute < "60" and second < "60":
                    seconds = self._day[1] + int(hour) * 3600 + int(minute) * 60 + int(second)
                    self._moment = text, seconds + int(fraction.ljust(3, "0")) / 1000 if fraction else seconds
                    return self._moment[1]
            except ValueError:
                pass
        if not moment:
            return math.nan
        msg = f"DataTime: expected a time like 20261123080000, found {text[:40]!r}"
        raise PayloadError(msg)

    def _answer(self, head: Mapping[str, str]) -> list[Answer]:
        """The acknowledgement of data, if the frame asks for one and can be named in it."""
        number, station, flag = head.get("QN"), head.get("MN", ""), head.get("Flag", "")
        if not (number and re.fullmatch(r"\d{1,3}", flag, re.ASCII) and re.fullmatch(r"[\w.-]+", station, re.ASCII)):
            return []
        if not int(flag) & 1:
            return []
        version = int(flag) & ~_NO_VERSION
        text = f"QN={number};ST=91;CN={_ANSWER};PW={head.get('PW', '')};MN={station};Flag={version};CP=&&&&"
        segment = text.encode()
        frame = b"##%04d%b%04X\r\n" % (len(segment), segment, crc(segment))
        return [Answer((self._answer_topic or "").replace("{mn}", station), frame)]


def _joined(pools: list[dict[str, float]], problems: list[str]) -> dict[str, float]:
    """The values of the first pool that has each; infinite ones become problems."""
    values = pools[0]
    for pool in pools[1:]:
        if pool:
            values = {**pool, **values}
    total = sum(values.values())
    if total - total != 0:  # some are missing, or infinite
        infinite = [name for name, value in values.items() if math.isinf(value)]
        problems += [f"{name}: expected a number, not {values.pop(name)}" for name in infinite]
    return values


def _head(text: str, first: int) -> dict[str, str]:
    try:
        return dict([item.split("=", 1) for item in text.replace(" ", "").split(";") if item])
    except ValueError:
        wrong = next(item for item in text.split(";") if item.strip(" ") and "=" not in item)
        place = first + len(text[: text.index(wrong)].encode())
        msg = f"byte {place}: expected KEY=value before CP, found {printable(wrong)!r}"
        raise PayloadError(msg) from None


def _loose(head: Mapping[str, str], text: str, sent: bytes) -> Iterator[str]:
    """In what a frame that was read is not as the standard says."""
    yield from (f"no {key}" for key in sorted(_REQUIRED - head.keys()))
    if re.search(r"[;,=&] | [;,=&]", text):
        yield "spaces between the parts"
    if _HEX.fullmatch(sent) and sent != sent.upper():
        yield "a CRC in lower case"


def _misfit(payload: bytes, start: int, length: int) -> str:
    """Why the segment does not end where its length says."""
    first = start + 6
    content = payload.find(b"CP=&&", first)
    closed = payload.find(b"&&", content + 5) if content >= 0 else -1
    beyond = payload.find(b"##", first)
    if closed >= 0 and not 0 <= beyond < closed:
        return f"byte {start + 2}: expected the length {closed + 2 - first:04}, found {length:04}"
    if len(payload) < first + length:
        return f"byte {len(payload)}: expected {first + length - len(payload)} more bytes, found the end"
    return f"byte {first + length - 2}: expected && at the end of CP, found {_shown(payload[first + length - 2 :])}"


def _shown(found: bytes) -> str:
    return repr(found[:20]).removeprefix("b") if found else "the end"


# One step of the standard's CRC is crc = table[(crc >> 8) ^ byte]: of 16 bits only the upper eight reach the next.
# So a step is a linear map L of eight bits (over GF(2)), and the whole is table[L⁷·b₇ ^ … ^ L·b₁ ^ b₀], where b₀ is
# the last byte. L⁸ is the identity, so bytes that are eight apart can be joined first, in a few steps on one integer.
def _table() -> list[int]:
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
        table.append(register)
    return table


_CRC = _table()
_POWERS = [list(range(256))]
for _ in range(7):
    _POWERS.append([_CRC[byte] >> 8 for byte in _POWERS[-1]])
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = _POWERS
_MASKS = [(64 << fold, (1 << (64 << fold)) - 1) for fold in range(8, -1, -1)]  # up to 2**15 bytes and beyond


def crc(segment: bytes) -> int:
    """The CRC of HJ 212, which is not that of Modbus: 16 bits.

    Args:
        segment: From after the length to the last ``&&``; not empty.
    """
    bits = 8 * len(segment)
    folded = int.from_bytes(segment, "big") ^ 0xFF << bits - 8
    while bits > _MASKS[0][0] * 2:
        folded = folded >> _MASKS[0][0] ^ folded & _MASKS[0][1]
        bits -= _MASKS[0][0]
    for width, mask in _MASKS:
        if bits > width:
            folded = folded >> width ^ folded & mask
            bits = width
    b7, b6, b5, b4, b3, b2, b1, b0 = folded.to_bytes(8, "big")
    return _CRC[_L0[b0] ^ _L1[b1] ^ _L2[b2] ^ _L3[b3] ^ _L4[b4] ^ _L5[b5] ^ _L6[b6] ^ _L7[b7]]
