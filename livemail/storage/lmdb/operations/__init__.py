"""What the writer can do: one class per command, one module per kind, each run inside a group's transaction."""
