"""Readers under mutated files: ``python tests/reliability/fuzzing.py [--readers A,B] [--minutes M]``.

Every case is decided by the reader's name and a number, so that one that fails can be run again with
``--readers NAME --number N``. Cases run in a process of their own with a bound on its memory; one that takes
longer than :data:`LIMIT_S` is interrupted, and where native code does not let itself be interrupted the
process is ended and begun anew after that case.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from reliability.readers import READERS

from nearfar.errors import InputError
from nearfar.provenance import machine, today
from nearfar.version import versions

#: Seconds that an input may take; a reader that takes longer hangs.
LIMIT_S = 10.0
#: Bytes that reading may add to the process's memory.
MEMORY = 2 * 2**30
ROOT = Path(__file__).parent.parent.parent
MARKS = ("<!-- fuzzing -->", "<!-- /fuzzing -->")


class HangError(BaseException):
    """An input took longer than :data:`LIMIT_S`."""


def case(reader, number, folder):
    """What the reader makes of a mutated file: ``ok``, ``refused`` (one clear line), or how it fails."""
    draw = random.Random(f"{reader.name}/{number}")
    inputs = reader.prepare(draw, folder)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(inputs)
        return "ok"
    except InputError as refusal:
        return "refused" if str(refusal).strip() else "FAULT: an error without a text"
    except HangError:
        return f"HANG: more than {LIMIT_S:g} s"
    except BaseException as fault:
        trace = traceback.extract_tb(fault.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in trace if "/nearfar/" in f.filename]
        place = ours[-1] if ours else ""
        return f"FAULT: {type(fault).__name__} at {place}: {str(fault)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(*_):
    raise HangError


def _worker(name, numbers, deadline, sender):
    logging.disable(logging.CRITICAL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        if deadline is not None and time.monotonic() > deadline:
            break
        sender.send((number, None))
        with tempfile.TemporaryDirectory() as folder:
            outcome = case(READERS[name], number, Path(folder))
        sender.send((number, outcome))
    sender.send((None, None))


def fuzz(name, count=None, minutes=None, first=0):
    """Numbers of outcomes of a reader, its failures by number, and how many inputs were tried."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    READERS[name].warm()
    outcomes, failures = Counter(), {}
    end = first + (count if count is not None else 10**9)
    while first < end and (deadline is None or time.monotonic() < deadline):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_worker, args=(name, range(first, end), deadline, sender)
        )
        process.start()
        sender.close()
        number, outcome = first, None
        try:
            while receiver.poll(2 * LIMIT_S):
                number, outcome = receiver.recv()
                if number is None:
                    return outcomes, failures, sum(outcomes.values())
                if outcome is not None:
                    outcomes[outcome.partition(":")[0]] += 1
                    if outcome[0].isupper():
                        failures[number] = outcome
            outcome = "HANG: in native code"
        except EOFError:
            process.join(5)
            outcome = f"CRASH: the process ended with status {process.exitcode}"
        process.kill()
        process.join()
        outcomes[outcome.partition(":")[0]] += 1
        failures[number] = outcome
        first = number + 1
    return outcomes, failures, sum(outcomes.values())


def write(path, readers):
    """Adds readers' figures to those in a file."""
    before = json.loads(path.read_text())["readers"] if path.is_file() else {}
    record = {
        "date": today(),
        "machine": machine(),
        "versions": versions(),
        "readers": {**before, **readers},
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def page(record):
    """The figures as a table."""
    lines = [
        "| reader | inputs | right results | refused | failures |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in record["readers"].items():
        failed = figures["inputs"] - figures.get("ok", 0) - figures.get("refused", 0)
        counts = (figures["inputs"], figures.get("ok", 0), figures.get("refused", 0), failed)
        lines.append(
            f"| {name.replace('_', ' ')} | {' | '.join(f'{count:,}' for count in counts)} |"
        )
    total = sum(figures["inputs"] for figures in record["readers"].values())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines += ["", f"{total:,} inputs in all ({record['date']}, {versions}, {record['machine']})."]
    return "\n".join(lines)


def write_page():
    """Puts the figures into docs/reliability.md, between the marks."""
    path = ROOT / "docs" / "reliability.md"
    before, _, rest = path.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    table = page(json.loads((ROOT / "results" / "fuzzing.json").read_text()))
    path.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--count", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--number", type=int, help="run one case in this process, with its traceback"
    )
    parser.add_argument("--out", type=Path, help="a JSON file that gets the figures")
    parser.add_argument(
        "--page", action="store_true", help="put the figures into docs/reliability.md"
    )
    options = parser.parse_args()
    if options.page:
        write_page()
        return 0
    if options.number is not None:
        reader = READERS[options.readers]
        with tempfile.TemporaryDirectory() as folder:
            inputs = reader.prepare(random.Random(f"{reader.name}/{options.number}"), Path(folder))
            print(reader.read(inputs))
        return 0
    names = options.readers.split(",")
    if (
        len(names) > 1
    ):  # a process each: one in which another reader has trained is not to be forked
        words = [word for word in sys.argv if word not in ("--readers", options.readers)]
        commands = [[sys.executable, *words, "--readers", name] for name in names]
        return max(subprocess.run(command, check=False).returncode for command in commands)
    record, failed = {}, False
    for name in names:
        started = time.monotonic()
        outcomes, failures, tried = fuzz(name, options.count or (None if options.minutes else 1000),
                                         options.minutes, options.first)  # fmt: skip
        kinds = Counter(
            text.split(":", 2)[0] + ":" + text.split(":", 2)[1] for text in failures.values()
        )
        print(
            f"{name}: {tried} inputs in {time.monotonic() - started:.0f} s: {dict(outcomes)}",
            flush=True,
        )
        for number, text in list(failures.items())[:40]:
            print(f"  {number}: {text}", flush=True)
        failed |= bool(failures)
        record[name] = {
            "command": f"python tests/reliability/fuzzing.py --readers {name} --count {tried}",
            "inputs": tried, "seconds": round(time.monotonic() - started), **outcomes,
            "failures": dict(kinds),
        }  # fmt: skip
        if options.out:
            write(options.out, record)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
