"""The one line that makes ``twistd livemail`` exist.  Keep it free of imports from livemail."""

from twisted.application.service import ServiceMaker

livemail = ServiceMaker(
    "livemail", "livemail.tap", "A whole mail server: SMTP, submission, LMTP, IMAP, POP3.", "livemail"
)
