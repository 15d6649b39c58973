"""The names of the filters that ship: what ``use = "NAME"`` finds.  Their modules are imported when a configuration uses them."""

from livemail.filters.plugin import FilterPlugin

limits = FilterPlugin(
    "limits", "livemail.filters.shipped.limits:Limits", "size, recipients, parts and line length of one message"
)
