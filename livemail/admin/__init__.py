"""What the `livemail` command does, beside a running server or on its files."""
