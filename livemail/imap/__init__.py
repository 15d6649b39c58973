"""IMAP4rev1 with the extensions clients rely on.  RFC 3501."""
