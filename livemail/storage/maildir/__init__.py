"""The Maildir format: Maildir++ folders, names of files with flags and keywords, line ends, Dovecot's lists.

An account's folder is INBOX, a mailbox ``a/b`` is the folder ``.a.b`` in it.  ``dovecot-uidlist`` is read when a folder is met first and
written by an export, ``dovecot-keywords`` is shared.
"""
