"""From ``use`` to a class: names by `twisted.plugin` dropins, everything else by dotted path."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import PurePath
from types import ModuleType
from typing import Final

from twisted.plugin import getPlugins

from livemail.filters.author import Filter
from livemail.interfaces.filter import IFilterPlugin

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")


class CannotFind(Exception):
    """There is no such filter, or it cannot be imported.  The text says what to do."""


def plugins() -> list[IFilterPlugin]:
    """Every filter the dropins bring, by name."""
    return sorted(getPlugins(IFilterPlugin), key=lambda plugin: (plugin.name, plugin.filter))


def find(use: str) -> type[Filter]:
    """Return the class that ``use`` means.  Raises CannotFind."""
    if _NAME.fullmatch(use):
        return _import(_path_of(use, plugins()), use)
    return _import(use, use)


def _path_of(name: str, known: Iterable[IFilterPlugin]) -> str:
    known = list(known)
    found: list[str] = sorted({plugin.filter for plugin in known if plugin.name == name})
    if len(found) > 1:
        raise CannotFind(f'two filters are named "{name}": {" and ".join(found)}; write the one you mean')
    if found:
        return found[0]
    names = sorted({plugin.name for plugin in known})
    near = difflib.get_close_matches(name, names, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(names) or 'none'}"
    raise CannotFind(f'there is no filter "{name}"; {hint}  A class of your own is written "package.module:Class"')


def _import(path: str, use: str) -> type[Filter]:
    module_name, colon, class_name = path.partition(":")
    if not colon:
        module_name, _, class_name = path.rpartition(".")
    if not module_name or not class_name or not all(part.isidentifier() for part in path.replace(":", ".").split(".")):
        raise CannotFind(f'"{use}" is neither a name nor "package.module:Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise CannotFind(
                f"there is no module {error.name}; install its package where the server runs, or add its folder to PYTHONPATH"
            ) from None
        raise CannotFind(_broken(module_name, error)) from None
    except Exception as error:
        raise CannotFind(_broken(module_name, error)) from None
    found = getattr(module, class_name, None)
    if found is None:
        near = difflib.get_close_matches(class_name, filters_of(module), 1)
        hint = f"did you mean {near[0]}?" if near else f"its filters are {', '.join(filters_of(module)) or 'none'}"
        raise CannotFind(f"{module_name} has no {class_name}; {hint}")
    if not isinstance(found, type) or not issubclass(found, Filter):
        raise CannotFind(f"{path} is not a subclass of livemail.filters.Filter")
    return found


def filters_of(module: ModuleType) -> list[str]:
    """Names of the filters a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Filter) and value is not Filter
    ]


def _broken(module_name: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {PurePath(frames[-1].filename).name})" if frames else ""
    if isinstance(error, SyntaxError):
        place = f" (line {error.lineno} of {PurePath(error.filename or '').name})"
    return f"{module_name} cannot be imported: {type(error).__name__}: {error}{place}"


def import_anew(module_name: str) -> dict[str, ModuleType]:
    """Forget a module and what its package holds, so that the next import reads the files again; return what was forgotten.

    Modules of livemail itself stay: a new one comes with a new server.  `put_back` undoes it.
    """
    top = module_name.partition(".")[0]
    if top == "livemail":
        return {}
    forgotten = {name: module for name, module in sys.modules.items() if name == top or name.startswith(top + ".")}
    for name in forgotten:
        del sys.modules[name]
    importlib.invalidate_caches()
    return forgotten


def put_back(forgotten: dict[str, ModuleType]) -> None:
    """Have the modules as they were."""
    for name in forgotten:
        top = name.partition(".")[0]
        for known in [each for each in sys.modules if each == top or each.startswith(top + ".")]:
            del sys.modules[known]
    sys.modules.update(forgotten)
