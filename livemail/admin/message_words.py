"""The words of ``livemail message``."""

from __future__ import annotations

import argparse
from typing import Any

from livemail.admin.command import Target, say, show_progress
from livemail.admin.explain import in_words


def add_words(words: Any) -> None:
    """Add ``message`` to the command's words."""
    message = words.add_parser("message", help="what became of a message").add_subparsers(metavar="VERB", required=True)
    explain = message.add_parser("explain", help="its whole story, from connection to mailbox or queue")
    explain.add_argument("id", metavar="ID", help="the id in our reply or in Received, a queue id, or a Message-ID")
    explain.set_defaults(verb=_explain)


def _explain(arguments: argparse.Namespace, target: Target) -> int:
    stories = target("message.explain", {"id": arguments.id}, show_progress)
    say(arguments, stories, "\n\n".join(in_words(told) for told in stories))
    return 0
