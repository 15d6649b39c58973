"""The filters that ship, one module each, on the public API alone; ``twisted/plugins/livemail_filters.py`` names them."""
