"""FETCH responses: what a row, a pre-rendered piece or a range of a message looks like on the wire.

`flags` and `dates` render single values through caches, `rows` whole batches of rows by one format string per
command, `sections` names and cuts the parts of a message.  Nothing here does input or output.
"""
