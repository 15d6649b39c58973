"""Expunged messages that are kept for a while, in the back end that stores everything in an index and segments."""
