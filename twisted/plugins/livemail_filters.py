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

attachments = FilterPlugin(
    "attachments",
    "livemail.filters.shipped.attachments:Attachments",
    "attachments by their real type, inside ZIP archives too",
)
rates = FilterPlugin(
    "rates", "livemail.filters.shipped.rates:Rates", "messages and recipients of one account or network"
)
external = FilterPlugin(
    "external-tag", "livemail.filters.shipped.external:ExternalTag", "marks mail from outside in header and subject"
)
identity = FilterPlugin(
    "sender-identity",
    "livemail.filters.shipped.identity:SenderIdentity",
    "strangers who write in our name, or hide theirs",
)
loops = FilterPlugin("loop-guard", "livemail.filters.shipped.loops:LoopGuard", "mail that was here before")
http = FilterPlugin("http", "livemail.filters.shipped.http:AskWebService", "asks a web service what to do")
