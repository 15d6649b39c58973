First light: one ``twistd livemail run`` receives mail by SMTP, submission and LMTP, files it durably in LMDB and serves it by IMAP4rev1 and POP3.
