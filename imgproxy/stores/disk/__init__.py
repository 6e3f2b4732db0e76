"""The tier on the local disk: bounded by bytes, its renditions published as plain files that nginx answers from.

    <root>/<edition>/ab/cd/<name>   published: hard links to the values, for nginx (directories 0711, files 0644)
    <root>/~<edition>/              0700: diskcache's `cache.db`, and the values it keeps at `ab/<name>~xxxx`
    <root>/~tmp/                    0700: what is being written
    <root>/~gone-.../               0700: what is being erased: other editions, a broken index with its files

What holds:

- Nothing unverified is given. The index knows length and SHA-256 of every value, and both are checked before the first byte is given.
  A process remembers what it has verified (inode, length, time of change) for some minutes, so that a hit is one `open` and one `fstat`.
- nginx verifies nothing. But a file that was never synced can be short after a power cut, so whatever was published before the
  machine was started again is unpublished when the tier is opened, and published anew once verified. Nothing is synced here.
- The tier may forget, and it never fails for it: a busy, broken or missing index is begun anew, a rotten value is absent and removed.
  Only a disk that cannot be written, or is full, is trouble, and only for `put`; on a full disk it gives up some values each time, so
  that it goes on within the room there is.
- What was used longest ago goes first. Uses are noted in the index once in ten minutes for what Python reads; for what nginx reads the
  hand that goes round at every `put` looks at the time of last access, and so does whoever evicts. Any but a `noatime` file system keeps
  it: values are given one before their modification, so that `relatime` notes the next reading at once.
- Its bytes are the values, each rounded up to blocks and with one block for its names, and `cache.db`. They may pass the size by what
  is just being written (an object for each thread that puts) and by SQLite's log (1 MB).
- Any number of processes and threads may use it at once; one that forks opens the index again in the child.
- Every rendition here is public to the users of this machine who know its name; nobody else than the owner can list them.
"""

from imgproxy.stores.disk.tier import DiskTier

__all__ = ["DiskTier"]
