"""The town that the browser tests look at, as line protocol and as a registry of places."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = "browser-test"
SITES = {
    "longgang": (119.03, 30.19, "龙岗镇", "Longgang", "룽강진"),
    "changhua": (119.21, 30.17, "昌化镇", "Changhua", "창화진"),
    "tianmu": (119.35, 30.13, "天目溪", "Tianmu river", "톈무강"),
    "yuqian": (119.40, 30.20, "於潜镇", "Yuqian", "위첸진"),
    "heqiao": (119.24, 30.09, "河桥村", "Heqiao", "허차오"),
}
READINGS = {
    "air": {"pm25": 35.0, "pm10": 60.0, "o3": 90.0},
    "weather": {"temperature": 18.0, "humidity": 64.0, "wind_speed": 3.2, "wind_direction": 40.0},
    "water": {"level": 1.8, "ph": 7.4, "nh3n": 0.8},
    "noise": {"laeq": 56.0},
    "traffic": {"flow": 640.0, "speed": 52.0, "occupancy": 14.0},
    "parking": {"occupied": 60.0, "capacity": 120.0, "free": 60.0},
    "soil": {"moisture": 31.0, "temperature": 16.0},
}
STANDING = {"noise": {"zone": "1"}, "traffic": {"road": "expressway"}, "water": {"target": "II"}}
"""By which limits sensors are judged."""
PER_KIND = 9
INTERVAL = 30
CHARTED = ("air", "longgang", "air-01")
"""The sensor with half an hour of history, three suspect values, two quarantined ones and a gap."""


def sensors() -> Iterator[tuple[str, str, str]]:
    """Yields (kind, site, sensor) of the town: 63 of them."""
    for kind in READINGS:
        for n, site in zip(range(1, PER_KIND + 1), [*SITES, *SITES], strict=False):
            yield kind, site, f"{kind}-{n:02d}"


def reading(kind: str, site: str, sensor: str, at: int, flag: int = 1, **changed: float) -> str:
    """Returns one reading as a gateway writes it; `at` is in ms, `flag` is the first quantity's."""
    values = READINGS[kind] | changed
    flags = [flag, *(1 for _ in range(len(values) - 1))]
    fields = ",".join(
        f"{name}={value},{name}_qc={qc}i" for (name, value), qc in zip(values.items(), flags, strict=True)
    )
    return f"{kind},gateway=gw-1,site={site},sensor={sensor} {fields} {at}"


def registry() -> dict[str, object]:
    """Returns the registry of places: the sites, and each sensor beside its site."""
    features: list[dict[str, object]] = []
    for site, (lon, lat, zh, en, ko) in SITES.items():
        title = {"zh": zh, "en": en, "ko": ko}
        geometry = {"type": "Point", "coordinates": [lon, lat]}
        properties: dict[str, object] = {"site": site, "role": "town", "title": title}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    for n, (kind, site, sensor) in enumerate(sensors()):
        lon, lat, zh, en, ko = SITES[site]
        title = {"zh": f"{zh} {sensor}", "en": f"{en} {sensor}", "ko": f"{ko} {sensor}"}
        geometry = {"type": "Point", "coordinates": [lon + n % 7 * 0.006 - 0.018, lat + n % 5 * 0.006 - 0.012]}
        properties = {"sensor": sensor, "site": site, "kind": kind, "title": title, "interval": INTERVAL}
        properties |= STANDING.get(kind, {})
        if kind == "water":
            properties |= {"river": "brook", "river_km": n}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def sources() -> dict[str, object]:
    """Returns what may pollute: a works 4 km north-east of one site."""
    title = {"zh": "水泥厂", "en": "Cement works", "ko": "시멘트 공장"}
    feature = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [119.24, 30.195]},
        "properties": {"source": "cement", "kind": "factory", "title": title},
    }
    return {"type": "FeatureCollection", "features": [feature]}


def history(now: int) -> Iterator[str]:
    """Yields half an hour of the charted sensor, the latest reading of every other one, events and a gateway."""
    kind, site, sensor = CHARTED
    for n in range(60):
        at = now - (60 - n) * INTERVAL * 1000
        if 20 <= n < 30:
            continue
        if n in {35, 45}:
            tags = f"gateway=gw-1,kind={kind},quantity=pm25,sensor={sensor},site={site}"
            yield f'quarantine,{tags} value=9999,flag=4i,reason="gross_range" {at}'
            yield f"{kind},gateway=gw-1,site={site},sensor={sensor} pm25_qc=4i,pm10=60,pm10_qc=1i {at}"
            continue
        link = f"battery=87,battery_qc=1i,rssi={-90 - n % 5},rssi_qc=1i,snr=7.5,snr_qc=1i,lost_uplinks=0"
        yield f"{kind},gateway=gw-1,site={site},sensor={sensor} {link} {at}"
        yield reading(*CHARTED, at, flag=3 if n in {10, 11, 50} else 1, pm25=35 + n % 7)
    for place in sensors():
        yield reading(*place, now)
    tags = "gateway=gw-1,kind=water,sensor=water-03,severity=orange,site=tianmu"
    yield f'event,{tags} id="e-1",quantity="level",value=4.6,limit=4.0,message="4.6 m > 4.0 m" {now - 90_000}'
    ledger = "received=900i,delivered=890i,queued=4i,quarantined=6i,dead=0i,duplicate=0i,evicted=0i"
    health = 'spool_bytes=40960i,rss_bytes=90000000i,uptime_s=3600,sensors=63i,version="0.1.0",'
    health += "disk_free_bytes=20000000000i,cpu_s=90,clock_known=1i,connected=1i,stuck=0i,ledger_mismatches=0i"
    yield f"gateway,gateway=gw-1 {ledger},{health} {now}"


@dataclass(frozen=True)
class City:
    """A running city server."""

    url: str

    def write(self, lines: Iterator[str] | list[str]) -> None:
        """Writes lines as a gateway's InfluxDB output does."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/api/v2/write?org=city&bucket=city&precision=ms",
            data="\n".join(lines).encode(),
            headers={"Authorization": f"Token {TOKEN}"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
            assert answer.status == 204
