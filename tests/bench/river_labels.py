"""River recordings with technicians' marks, as `citygate evaluate` and `citygate inject` read them.

The recordings of the Logan River Observatory (as pyhydroqc carries them) have for each quantity a column as measured,
one as the technicians corrected it (`_cor`), and one with the code of their reason (`_qual`). A reading with a code is
part of an episode, as in pyhydroqc; its label is `code-N`. -9999 without a code is labelled `sentinel`. Stage is in cm,
a level in m.

    python -m tests.bench.river_labels RIVER.csv.gz… -o labelled.csv         as measured, with labels
    python -m tests.bench.river_labels --clean RIVER.csv.gz… -o clean.csv    as corrected, without; to inject into

Each file is a sensor of its own, named by it. Times are of the zone -07:00, all year.
"""

import argparse
import csv
import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

QUANTITIES = {
    "temp": "temperature",
    "cond": "conductivity",
    "ph": "ph",
    "do": "dissolved_oxygen",
    "turb": "turbidity",
    "stage": "level",
}
NOTHING = {"", "NULL"}
SENTINEL = -9999.0
HEADER = ("time", "sensor", "kind", "quantity", "value", "label")


def rows(path: Path, *, clean: bool) -> Iterator[tuple[datetime, str, str, str, str, str]]:
    """The readings of a file, in the order of HEADER; corrected ones in the digits of those that were measured."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(f"{row['datetime'].split('.')[0]}-07:00")
            for column, quantity in QUANTITIES.items():
                measured, code = row.get(column, "NULL"), row.get(f"{column}_qual", "NULL")
                text = row.get(f"{column}_cor", measured) if clean else measured
                if text in NOTHING or (clean and float(text) == SENTINEL):
                    continue
                label = "" if code in NOTHING else f"code-{code}"
                if not label and float(text) == SENTINEL:
                    label = "sentinel"
                if quantity == "level" and float(text) != SENTINEL:
                    text = f"{float(text) / 100:.4f}"
                elif clean:
                    text = f"{float(text):.{len(measured.partition('.')[2])}f}"
                yield time, path.name.split(".")[0], "water", quantity, text, "" if clean else label


def main() -> None:
    """Writes one recording of all files, in the order of time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--clean", action="store_true")
    options = parser.parse_args()
    found = [row for path in options.files for row in rows(path, clean=options.clean)]
    found.sort(key=lambda row: row[:2])
    with options.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((time.isoformat(), *rest) for time, *rest in found)


if __name__ == "__main__":
    main()
