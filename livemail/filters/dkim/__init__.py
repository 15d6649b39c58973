"""DKIM, the first pair of filters on the public API: `sign` on submission, `verify` on arrival.  RFC 6376, 8463, 8601.

dkimpy parses, canonicalises header fields and does the cryptography.  It wants the whole message in memory; here the body is hashed while it streams
past (`body`), and dkimpy is given the header alone (`streamed`).  Keys come from a folder (`keys`) or from DNS through the resolver.
"""
