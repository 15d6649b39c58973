"""Milters, both sides of the protocol: other people's filters in our chain, and our chain in other people's servers.

`filter` is a filter of the chain that asks an external milter; `protocol` serves the chain to Postfix and Sendmail.
"""
