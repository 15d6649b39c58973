"""Mail comes in from other stores, and goes out to them: Maildir, mbox, .eml files, archives of those, any IMAP server.

    sources     `maildir`, `mbox`, `eml`, `imap`: read in a thread, one message at a time, as octets with CRLF
    importer    batches of them become one commit each, which also notes that they came (`livemail.interfaces.transfer`)
    exporter    the account's mailboxes, read as any session does, to one of three targets

Whatever breaks an import off, another run goes on where the last commit was.  What cannot be read is named in the report with
the reason, and the rest comes.  Memory is bounded by a batch; a large message goes through the spool.
"""
