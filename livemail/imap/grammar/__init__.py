"""What stands inside a command: one cursor over its fragments and literals.  RFC 3501 §9."""
