"""livemail: the whole of a mail server in readable, typed Python on Twisted."""
