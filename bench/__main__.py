"""``python -m bench ingest|fetch|filters|queue|relay``: starts the peers itself, checks that the work was done, prints a table."""

from __future__ import annotations

import argparse
import os
import platform
import sys

from bench import fetch, filters, ingest, relay
from bench.ground import BenchError, need_programs, scratch


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
    options = parser.parse_args()
    try:
        if options.measure != "filters":
            need_programs()
        with scratch(options.keep) as folder:
            if options.measure == "ingest":
                lines = ingest.measure(folder, runs=options.runs, count=options.messages, size=options.size)
            elif options.measure == "filters":
                lines = filters.measure(folder, runs=options.runs, count=options.messages, size=options.size)
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
