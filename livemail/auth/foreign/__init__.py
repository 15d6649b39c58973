"""Between livemail and code written for `twisted.mail`: adapters in both directions, at the price each side's interface asks.

    pop3       a foreign `IMailboxPOP3` served by our POP3; our account as `IMailboxPOP3` for `twisted.mail.pop3.POP3`
    imap       a foreign `IAccountIMAP` served by our IMAP (`imap_account`); our account as `IAccountIMAP` for
               `twisted.mail.imap4.IMAP4Server` (`imap_offered`)
    delivery   a foreign `IMessageDelivery` behind our SMTP; our `IDeliveryTarget` as `IMessageDelivery` for `twisted.mail.smtp`

Interfaces come from `twisted.mail.interfaces`.  `twisted.mail.smtp` imports the reactor when it is imported, so it is
imported where it is needed and never at the head of a module.  Nothing that the server starts by default imports this package.
"""
