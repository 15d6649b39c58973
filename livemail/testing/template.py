"""``livemail filter new NAME``: a package with a filter that works, its tests, and what makes ``use = "NAME"`` find it."""

from __future__ import annotations

import importlib.util
import keyword
import re
import string
import sys
from importlib import resources
from pathlib import Path

from livemail.filters.find import plugins

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


class BadName(ValueError):
    """Not a name for a filter, or the folder is there.  The text says what to do."""


def write_package(name: str, above: Path) -> list[Path]:
    """Write the folder NAME below ``above``; return the files.  Raises BadName, OSError."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise BadName(
            f"{name!r} cannot be a filter's name; write lower-case letters, digits and hyphens, such as no-executables"
        )
    module = name.replace("-", "_")
    folder = above / name
    if folder.exists():
        raise BadName(f"{folder} is there already; choose another name, or remove it")
    if name in {plugin.name for plugin in plugins()}:
        raise BadName(f"{name!r} is a filter that is there already; choose another name")
    if module in {"test", "tests", "mail", "filter", "filters"} or _is_module(module):
        raise BadName(f"{name!r} is the name of another module; choose another")
    words = {"name": name, "module": module, "cls": "".join(part.capitalize() for part in re.split("[-_]", name))}
    written = []
    source = resources.files("livemail.testing") / "templates"
    for target, template in {
        f"{module}.py": "module.txt",
        f"test_{module}.py": "test.txt",
        f"twisted/plugins/{module}_plugin.py": "plugin.txt",
        "pyproject.toml": "pyproject.txt",
        "README.rst": "readme.txt",
        "corpus/plain.eml": "plain.txt",
        "corpus/plain.verdict": "plain_verdict.txt",
        "corpus/marked.eml": "marked.txt",
        "corpus/marked.verdict": "marked_verdict.txt",
        "corpus/marked.smtp": "marked_smtp.txt",
    }.items():
        text = string.Template((source / template).read_text("utf-8")).substitute(words)
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        written.append(path)
    return written


def _is_module(name: str) -> bool:
    """Whether a module of that name would be hidden by the new one, or hide it.  A folder without code is none."""
    if name in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None
