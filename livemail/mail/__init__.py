"""Values every layer speaks: addresses, flags, sets of UIDs, mailbox names, message structure, changes, errors.

Nothing here does input or output and nothing imports Twisted.
"""
