"""What the ``livemail`` command does, beside a running server over its control socket or on the data folder itself.

`operations` is what can be done, `control` the socket, `offline` how the same coroutines run without a server, `command` the
words typed and the answers printed, `first_run` the local profile's first minute.
"""
