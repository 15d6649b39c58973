"""The queue's tables and operations, written once over ordered tables: LMDB's, or sorted ones in memory."""
