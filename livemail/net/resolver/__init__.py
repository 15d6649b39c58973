"""DNS as a client of recursive (or authoritative) servers: `livemail.interfaces.relay.IResolver`.

`message` octets ↔ questions and answers, `records` what an answer means, `exchange` one question to one server by UDP and
TCP, `servers` which of them to ask first, `cache` what is remembered, `resolver` all of it together.
"""
