"""Accounts whose messages are files in a Maildir, beside those whose messages lie in segments.

The folder is what counts: message, flags and mailbox are what the file system says, so that procmail, mutt or Dovecot can work on it
and an admin can leave with it.  The index remembers what a folder cannot: UIDs, ModSeq, the
rendered ENVELOPE and BODYSTRUCTURE, keywords behind the 26th.  It is brought up to date from the folder and never the other way.

    layout        `livemail.storage.maildir`: Maildir++, names, letters, line ends, Dovecot's files
    our changes   `changes`, `effects`: the folder first, then the commit; undone when that fails
    theirs        `sync`, `compare`, `operations`: compared when a folder's time has changed, and now and then
    reading       `reading`, `account`, `check`
"""
