"""livemail: the whole of a mail server in readable, typed Python on Twisted."""

__version__ = "0.1.0"
"""setup.cfg reads it here, so that a checkout with nothing installed knows it too."""
