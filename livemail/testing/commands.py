"""``livemail filter new NAME`` and ``livemail filter test FILE CORPUS``: what an author does before a server has his filter."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livemail.admin.filter_words import add_settings, read_settings
from livemail.admin.operations import EX_DATA, EX_PROBLEMS, Refused
from livemail.alone import in_reactor
from livemail.config import Config
from livemail.config.filters import filter_specs
from livemail.filters import Server
from livemail.filters.find import filters_of
from livemail.filters.plan import FilterSpec
from livemail.testing.corpus import HOSTILE, Tried, items, summary, try_one
from livemail.testing.template import BadName, write_package


def add_words(verbs: Any) -> None:
    """Add the verbs an author needs to ``filter``'s."""
    new = verbs.add_parser("new", help="write a package with a filter that works, its tests and its plugin dropin")
    new.add_argument("name", metavar="NAME", help="of the filter and its folder: lower-case, digits, hyphens")
    new.add_argument("--in", dest="above", default=".", metavar="DIR", help="where the folder is made (default here)")
    new.set_defaults(local=_new)
    test = verbs.add_parser("test", help="run messages and SMTP transcripts through a filter")
    test.add_argument("filter", metavar="FILE", help="file.py, file.py:Class, package.module:Class, or a name")
    test.add_argument("corpus", metavar="CORPUS", help=f"folder or file of .eml and .smtp, or `{HOSTILE}`")
    test.add_argument(
        "--no-hostile", action="store_true", help="leave out the hostile messages that come with livemail"
    )
    test.add_argument(
        "--update", action="store_true", help="write what came of each message beside it, as golden from now on"
    )
    add_settings(test)
    test.set_defaults(local=_test)


def _new(arguments: argparse.Namespace, _config: Config) -> int:
    try:
        written = write_package(arguments.name, Path(arguments.above))
    except BadName as error:
        raise Refused(str(error), EX_DATA) from None
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}", EX_DATA) from None
    folder = Path(arguments.above) / arguments.name
    if arguments.json:
        print(json.dumps({"folder": str(folder), "files": [str(path) for path in written]}))
    else:
        print("\n".join(str(path) for path in written))
        print(f"Now: cd {folder} && pytest; {folder.name}/README.rst says how to go on.")
    return 0


def spec_of(written: str, settings: dict[str, Any]) -> FilterSpec:
    """The filter an author means, from a file or by name.  Raises Refused."""
    path, _, name = written.partition(":")
    use = written
    if path.endswith(".py") or "/" in path:
        use = f"{_module_of(Path(path))}:{name or _only_filter(Path(path))}"
    try:
        [spec] = filter_specs([{"use": use, **settings}])
    except ValueError as error:
        raise Refused(str(error), EX_DATA) from None
    return spec


def _module_of(path: Path) -> str:
    """Import a file as the module its name says, its folder first on the path as for a script."""
    if not path.is_file():
        raise Refused(f"{path} is not a file", EX_DATA)
    module_name = path.stem
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(module_name)
    if known is not None and getattr(known, "__file__", None) == str(path.absolute()):
        return module_name
    found = importlib.util.spec_from_file_location(module_name, path.absolute())
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        line = getattr(error, "lineno", None)
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path.absolute()):
                line = trace.tb_lineno
            trace = trace.tb_next
        raise Refused(f"{path}:{line or 0}: {type(error).__name__}: {error}", EX_DATA) from None
    return module_name


def _only_filter(path: Path) -> str:
    module = sys.modules[path.stem]
    own = [name for name in filters_of(module) if getattr(module, name).__module__ == module.__name__]
    if len(own) == 1:
        return own[0]
    hint = (
        f"write {path}:{own[0]}, or another of {', '.join(own)}"
        if own
        else "a filter is a subclass of livemail.filters.Filter"
    )
    raise Refused(f"{path} has {len(own)} filters; {hint}", EX_DATA)


def _test(arguments: argparse.Namespace, _config: Config) -> int:
    spec = spec_of(arguments.filter, read_settings(arguments.set))
    if arguments.corpus != HOSTILE and not Path(arguments.corpus).exists():
        raise Refused(
            f"{arguments.corpus} is not there; give a folder of .eml and .smtp files, or `{HOSTILE}`", EX_DATA
        )

    async def main(reactor: Any) -> int:
        from twisted.internet.threads import deferToThread

        run_blocking: Any = deferToThread
        server = Server(reactor=reactor, run_blocking=run_blocking)
        tried = []
        for item in items(arguments.corpus, with_hostile=not arguments.no_hostile):
            one = await try_one(item, [spec], server)
            if arguments.update and item.path is not None and not item.is_transcript and not one.failure:
                item.path.with_suffix(".verdict").write_text("\n".join(one.lines) + "\n", "utf-8")
                one.golden = one.lines
            tried.append(one)
            if not arguments.json:
                _show(one)
        return _end(arguments, tried)

    return in_reactor(main)


def _show(one: Tried) -> None:
    word = "ok   " if one.is_right else "WRONG"
    print(
        f"{word} {one.name:42} {one.seconds * 1000:9.3f} ms {one.octets / 1024:10,.0f} KiB  {one.lines[0] if one.lines else ''}"
    )
    if one.failure:
        print(f"      {one.failure}")
    elif not one.is_right:
        for line in difflib.unified_diff(one.golden or [], one.lines, "golden", "came", lineterm="", n=1):
            print(f"      {line}")


def _end(arguments: argparse.Namespace, tried: Sequence[Tried]) -> int:
    found = summary(tried)
    if arguments.json:
        rows = [
            {"name": one.name, "right": one.is_right, "lines": one.lines, "golden": one.golden, "seconds": one.seconds,
             "octets": one.octets, "failure": one.failure}
            for one in tried
        ]  # fmt: skip
        print(json.dumps({**found, "tried": rows}))
    else:
        print(
            f"{found['messages']} messages, {found['wrong']} wrong, {found['golden']} with golden verdicts; slowest {found['slowest']}"
            f" {found['slowest_seconds'] * 1000:.1f} ms, largest {found['largest']} {found['largest_octets'] / 1024:,.0f} KiB"
        )
    return EX_PROBLEMS if found["wrong"] or not tried else 0
