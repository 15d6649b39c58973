"""One module per command: parse and run."""
