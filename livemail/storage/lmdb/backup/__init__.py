"""Backups of a store while it works: `write`, `verify`, `restore`.

    DIR/livemail-backup.json      format, the store's uuid, the recipient everything is encrypted to, "" for nobody
    DIR/000001.manifest.json      what belongs to one backup: names, places and digests of the files below; written last
    DIR/000001.meta               meta.json of the store: it holds the key of the digests
    DIR/000001.index              the index, one snapshot, compacted
    DIR/seg/SEGMENT-FROM-TO       octets of a segment; what an earlier backup has is not written again
    DIR/mail/000001.pack          messages of accounts in Maildirs that no earlier backup has; 000001.list names them

With a recipient each file but the first two ends with ``.age`` and is encrypted (age-encryption.org, through pyrage); making a backup needs
the public key alone, so that whoever takes the server cannot read its backups.

Consistent: the index is one LMDB snapshot, and contents never change: a segment only grows, and one that is removed while it is copied
was opened before.  Crash: without its manifest a backup does not exist; what it had copied is used by the next.
"""
