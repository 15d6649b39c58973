"""Back ends of `livemail.interfaces.storage`: memory and LMDB."""
