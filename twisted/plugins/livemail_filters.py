"""The names of the filters that ship: what ``use = "NAME"`` finds.  Their modules are imported when a configuration uses them."""

from livemail.filters.plugin import FilterPlugin

limits = FilterPlugin(
    "limits", "livemail.filters.shipped.limits:Limits", "size, recipients, parts and line length of one message"
)

milter = FilterPlugin("milter", "livemail.milter.filter:Milter", "asks an external milter (OpenDKIM, rspamd, …)")

dkim_sign = FilterPlugin(
    "dkim-sign", "livemail.filters.dkim.sign:DKIMSign", "signs submitted mail with the keys of its domain"
)

dkim_verify = FilterPlugin(
    "dkim-verify", "livemail.filters.dkim.verify:DKIMVerify", "verifies signatures, adds Authentication-Results"
)
