"""The seams: what a layer may ask of the layers below it, and nothing else.

Five modules: `storage`, `directory`, `delivery`, `filter`, `runtime`.  They import `livemail.mail` and no Twisted.
Asynchronous methods are coroutine functions; a local provider's coroutine usually finishes without suspending, and
callers run it eagerly (`livemail.net.coroutines`), so that a call costs 0.3 microseconds and no Deferred.
"""
