"""Accounts whose messages are files in a Maildir, beside those whose messages lie in segments.

The folder is what counts: message, flags and mailbox are what the file system says, so that procmail, mutt or Dovecot can work on it
and an admin can leave with it.  The index of `livemail.storage.lmdb` remembers what a folder cannot: UIDs, ModSeq, the
rendered ENVELOPE and BODYSTRUCTURE, keywords behind the 26th.  It is brought up to date from the folder and never the other way.

    layout        Maildir++: the account's folder is INBOX, a mailbox ``a/b`` is the folder ``.a.b`` in it
    our changes   `livemail.storage.maildir.changes`: the folder first, then the commit; undone when that fails
    theirs        `livemail.storage.maildir.sync`: compared when a folder's time has changed, and now and then
    Dovecot       ``dovecot-uidlist`` is read when a folder is met first, ``dovecot-keywords`` is shared
"""
