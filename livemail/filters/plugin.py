"""A filter's entry in a dropin: what makes ``use = "NAME"`` find a class.

A package that brings filters puts a file of any name into ``twisted/plugins/`` (no ``__init__.py`` there, ever):

    from livemail.filters import FilterPlugin

    no_executables = FilterPlugin("no-executables", "mypackage.policy:NoExecutables", "Refuse Windows executables.")

The class is imported when a configuration uses it, not before.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from livemail.interfaces.filter import IFilterPlugin


@implementer(IPlugin, IFilterPlugin)
class FilterPlugin:
    """See `IFilterPlugin`."""

    def __init__(self, name: str, filter: str, description: str = "") -> None:  # noqa: A002 - the interface's word
        self.name = name
        self.filter = filter
        self.description = description
