"""MIME by offsets: structure, header fields, ENVELOPE, BODYSTRUCTURE and part ranges from one streaming pass.

`scanner.Scanner` is fed the octets as they arrive and gives a `summary.Summary`; nothing is decoded that is not asked
for, no part is ever held, and no input, however malformed, is refused.
"""
