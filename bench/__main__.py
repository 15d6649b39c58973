"""``python -m bench ingest|fetch|filters|queue|relay|growth``: starts the peers itself, checks that the work was done, prints a table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from bench import fetch, filters, growth, ingest, relay
from bench.ground import BenchError, need_programs, scratch


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(each) for each in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1000:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of sizes; write two or more of at least 1000, such as 1000,1000000"
        )
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each server (default 5)")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder")
    measures = parser.add_subparsers(dest="measure", required=True)
    one = measures.add_parser("ingest", help="durable ingest beside Postfix → Dovecot")
    one.add_argument(
        "--messages", type=int, default=12_000, help="messages a run (default 12,000; the peer gets a quarter)"
    )
    one.add_argument("--size", type=int, default=4096, help="octets a message (default 4096)")
    two = measures.add_parser("fetch", help="FETCH beside Dovecot")
    two.add_argument("--messages", type=int, default=100_000, help="messages in the mailbox (default 100,000)")
    two.add_argument("--only", choices=list(fetch.ITEMS), help="one measure alone")
    three = measures.add_parser("filters", help="what the filter chain costs, and what a body holds")
    three.add_argument("--messages", type=int, default=8_000, help="messages a run (default 8,000)")
    three.add_argument("--size", type=int, default=4096, help="octets a message (default 4096)")
    for name, text in (("queue", "accept to queue beside Postfix"), ("relay", "relay to a sink beside Postfix")):
        more = measures.add_parser(name, help=text)
        more.add_argument(
            "--messages", type=int, default=8_000, help="messages a run (default 8,000; the peer gets a quarter)"
        )
        more.add_argument("--size", type=int, default=4096, help="octets a message (default 4096)")
        if name == "relay":
            more.add_argument("--tls", choices=["off", "on", "both"], default="both", help="to the sink (default both)")
    last = measures.add_parser("growth", help="what a mailbox's size costs: 1,000 messages beside a million")
    last.add_argument(
        "--sizes",
        type=_sizes,
        default=growth.SIZES,
        metavar="N,N,…",
        help="messages in the mailboxes (default 1000,…,1000000)",
    )
    last.add_argument("--rounds", type=int, default=200, help="commands of each kind in each mailbox (default 200)")
    last.add_argument(
        "--gaps", type=int, default=growth.GAPS, metavar="N", help="places expunged in each 1,000 messages (default 10)"
    )
    last.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians as an SVG")
    options = parser.parse_args()
    try:
        if options.measure not in {"filters", "growth"}:
            need_programs()
        with scratch(options.keep) as folder:
            if options.measure == "ingest":
                lines = ingest.measure(folder, runs=options.runs, count=options.messages, size=options.size)
            elif options.measure == "filters":
                lines = filters.measure(folder, runs=options.runs, count=options.messages, size=options.size)
            elif options.measure == "growth":
                lines = growth.measure(
                    folder, runs=options.rounds, sizes=options.sizes, gaps=options.gaps, plot=options.plot
                )
            elif options.measure == "queue":
                lines = relay.measure_queue(folder, runs=options.runs, count=options.messages, size=options.size)
            elif options.measure == "relay":
                lines = []
                for tls in {"off": [False], "on": [True], "both": [False, True]}[options.tls]:
                    place = folder / f"relay-{tls}"
                    place.mkdir()
                    place.chmod(0o755)
                    lines += relay.measure(place, runs=options.runs, count=options.messages, size=options.size, tls=tls)
            else:
                lines = fetch.measure(folder, runs=options.runs, count=options.messages, only=options.only)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
