"""The relay client: brings messages to other hosts by SMTP and LMTP.  RFC 5321, 2033.

wire       reply lines in, command lines and stuffed content out; no I/O
state      which replies a command may have, and what they mean for the mail transaction: one table
offers     what a peer's EHLO says it can
envelope   MAIL and RCPT as this peer can take them
convert    8-bit content made 7-bit for a peer without 8BITMIME
dialogue   what is said when: generators that ask for replies, octets and TLS; no I/O
protocol   the only module that knows the transport: drives one dialogue after the other
dial       from addresses to a connection, IPv6 and IPv4 side by side
pool       connections that rest between messages
relay      the provider of `livemail.interfaces.relay.IRelay`: hosts in their order, results per recipient
"""
