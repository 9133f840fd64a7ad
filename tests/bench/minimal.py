"""The script that one would write with aiomqtt and influxdb-client, batching: no checks, no spool, no ledger.

``python minimal.py BROKER_PORT DATABASE_URL``; what the citygate agent is compared with.
"""
# mypy: ignore-errors
# influxdb-client is hardly typed, and the script would not be.

import asyncio
import json
import sys

import aiomqtt
from influxdb_client import InfluxDBClient, Point, WriteOptions, WritePrecision


async def main(port: int, url: str) -> None:
    options = WriteOptions(batch_size=5000, flush_interval=1000)
    with InfluxDBClient(url=url, token="", org="town") as influx, influx.write_api(write_options=options) as writer:
        async with aiomqtt.Client("127.0.0.1", port=port, identifier="minimal", clean_session=False) as client:
            await client.subscribe("city/#", qos=1)
            async for message in client.messages:
                _, site, kind, sensor = str(message.topic).split("/")
                data = json.loads(message.payload)
                point = Point(kind).tag("site", site).tag("sensor", sensor).time(data.pop("ts"), WritePrecision.MS)
                for quantity, value in data.items():
                    point.field(quantity, value)
                writer.write(bucket="city", record=point)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
