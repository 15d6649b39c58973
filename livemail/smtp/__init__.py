"""SMTP, submission and LMTP.  RFC 5321, 6409, 2033."""
