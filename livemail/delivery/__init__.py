"""From an accepted envelope to mailboxes: the router and the local delivery agent."""
