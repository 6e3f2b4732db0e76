"""Words: what people say about images, kept in a database that may be lost at any moment, and commits that may not.

    record.py     what is said of one image, and what of that is refused
    fields.py     the checks of each field
    exif.py       what a camera wrote -> facts of a record
    tokens.py     texts -> the words and marks that a search compares
    database.py   the local database: connections, its schema, what its errors mean
    checkpoint.py its log copied into its file, beside everything else
    staging.py    states of records that are not live yet
    sessions.py   open, change, read, compare, discard; forgotten ones expire
    journal.py    a commit as an object: numbered, chained by hashes, compressed
    applying.py   a staged commit becomes live, in one transaction
    index.py      the indexes: made anew where very much arrives, tended in quiet moments
    chain.py      the commits in the store: read back, verify, follow; a fork is seen
    lease.py      one writer at a time
    commits.py    a session becomes a commit; the log, and going back
    snapshots.py  the whole database as an object
    restoring.py  a database out of snapshots and commits; the proof that it equals a live one
    boot.py       open the local database, or restore what is not there or damaged
    repository.py all of it put together
    absent.py     which originals a store does not have
    query.py      what may be asked, and the place in a long answer
    shelves.py    where a search looks
    search.py     words, tags, dates and the rest, page by page, at one moment
    finding.py    one record, by its hash, MD5 or alias
    near.py       pictures that look alike
    following.py  a reading node that keeps up with the writer
    level.py      since when it may not have kept up
    farewell.py   originals whose records were deleted
    sync.py       records and originals made to agree
    verify.py     originals hashed again, at a bounded pace
    bulk.py       a million records in one session
    jsontext.py   JSON of our own making (msgspec)
    packed.py     zstd, and nothing else

Durability in three rules. A commit is an object in the store before it is anything else; the local database follows it. Numbers
decide, times inform. Nothing that matters is ever overwritten.
"""
