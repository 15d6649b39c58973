"""Side by side with the peers on one machine, in one run: ``python -m bench ingest``, ``python -m bench fetch``."""
