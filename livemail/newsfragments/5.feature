Filters: ``[[filter]]`` tables in order, found by name or dotted path, typed configuration; bodies stream; scopes, time limits, failure policy, shadows, processes of their own.
External milters in the chain (``use = "milter"``), the chain as a milter of Postfix and Sendmail (``twistd livemail milter``).
DKIM: ``dkim-sign`` with RSA and Ed25519 keys, ``dkim-verify`` with Authentication-Results.
``livemail message explain ID``: connection, each filter's verdict, time and edits, mailboxes and UIDs, queue and attempts.
``livemail filter new|test|list|reload|replay``, shadow mode; shipped filters: ``attachments``, ``sender-identity``, ``rates``, ``external-tag``, ``loop-guard``, ``limits``, ``http``.
``livemail.testing``: the whole suite in a test's process, pytest fixtures, helpers for trial.
