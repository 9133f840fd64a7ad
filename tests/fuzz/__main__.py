"""`make fuzz`: mutates inputs, guided by the code they reach, until the time is over or one breaks a target.

An input that broke a target is written beside the corpus, and replayed by the tests from then on.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway", "sensors", "json"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 10.0  # seconds for one input; slower is a stall


def fuzz(target: str, minutes: float, found: Path) -> None:
    """Does not return: the fuzzer ends the process, with 0 if nothing broke."""
    new = found / target
    new.mkdir(parents=True, exist_ok=True)
    options = [
        sys.argv[0],
        f"-max_total_time={minutes * 60:.0f}",
        f"-timeout={LONGEST:.0f}",
        f"-artifact_prefix={CORPUS / target}/",
        "-max_len=65536",
        "-print_final_stats=1",
        str(new),
        str(CORPUS / target),
    ]
    atheris.Setup(options, TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each (default: %(default)g)")
    parser.add_argument("--found", type=Path, default=Path(".fuzz"), help="where new inputs go (default: %(default)s)")
    arguments = parser.parse_args()
    targets = arguments.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if len(targets) == 1:
        fuzz(targets[0], arguments.minutes, arguments.found)
    options = ["--minutes", str(arguments.minutes), "--found", str(arguments.found)]
    for target in targets:
        sys.stderr.write(f"--- {target}: {arguments.minutes:g} minutes\n")
        if code := subprocess.run([sys.executable, "-m", "tests.fuzz", target, *options], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
