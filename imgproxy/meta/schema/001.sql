-- The local database. All of it but sessions and what is staged in them can be made again from the commits in the store.

-- The commits that this copy has applied. The newest is the moment that readers see.
CREATE TABLE commits (
    n INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,             -- SHA-256 of the object as it lies in the store
    session TEXT NOT NULL UNIQUE,   -- a session is committed once: asked again, the answer is the same number
    author TEXT NOT NULL,
    message TEXT NOT NULL,
    time TEXT NOT NULL,             -- by the writer's clock; informs
    changes INTEGER NOT NULL,
    applied REAL NOT NULL           -- by this node's clock; says how long superseded states are kept
) STRICT;

-- What is live.
CREATE TABLE records (
    id INTEGER PRIMARY KEY,         -- the place in the order of dates: seconds since the year 1, times 2^24, plus a number within the second
    hash BLOB NOT NULL UNIQUE,
    since INTEGER NOT NULL,         -- the commit that made this state live: the record's version
    seq INTEGER NOT NULL UNIQUE,    -- the place in the order of arrival: first commit, times 2^24, plus the line in that commit
    md5 BLOB,
    phash INTEGER,                  -- 64 bits, signed
    domain TEXT,
    dkey TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    text TEXT NOT NULL,             -- all words, and the marks of tags, type, orientation and sizes; see tokens.py
    state TEXT NOT NULL             -- the record as JSON, without hash and version
) STRICT;
CREATE INDEX records_by_md5 ON records (md5) WHERE md5 IS NOT NULL;
CREATE UNIQUE INDEX records_by_alias ON records (domain, dkey) WHERE domain IS NOT NULL;
-- Four bands of a perceptual hash: two hashes that differ in fewer than 4 x (r + 1) bits have a band that differs in at most r.
CREATE INDEX records_by_band_0 ON records (phash & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_1 ON records (phash >> 16 & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_2 ON records (phash >> 32 & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_3 ON records (phash >> 48 & 65535) WHERE phash IS NOT NULL;

-- The full-text index. Tokens are made by tokens.py; here they are only cut at spaces. Its row ids are in the order of dates, so
-- that it yields the newest pictures first without sorting.
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'records', content_rowid = 'id', columnsize = 0, tokenize = "ascii tokenchars '_'", prefix = '2'
);
CREATE TRIGGER words_come AFTER INSERT ON records BEGIN
    INSERT INTO words (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER words_go AFTER DELETE ON records BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
END;

-- How many live records have a mark; the empty mark counts all.
CREATE TABLE counts (mark TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- States that were live until a commit replaced them, kept a while for those who read page by page.
CREATE TABLE past (
    number INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    hash BLOB NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,         -- the commit that replaced it: visible at moments from `since` to before `until`
    seq INTEGER NOT NULL,
    md5 BLOB,
    phash INTEGER,
    domain TEXT,
    dkey TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    text TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX past_by_until ON past (until);

-- Open sessions. They are of this copy alone, and no snapshot has them.
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    author TEXT NOT NULL,
    opened TEXT NOT NULL,
    idle REAL NOT NULL DEFAULT 0,       -- seconds of running time since anybody changed it; no clock can jump it
    revision INTEGER NOT NULL DEFAULT 0,
    committing INTEGER                  -- the number that it is being committed as; it takes no changes then
) STRICT;
CREATE UNIQUE INDEX sessions_by_name ON sessions (name) WHERE name != '';

-- The full new states in open sessions; a state of NULL deletes the record.
CREATE TABLE staged (
    number INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    hash BLOB NOT NULL,
    based_on INTEGER NOT NULL,          -- the version that was live when it was first changed here, 0 for none
    second INTEGER,                     -- of the date, since the year 1
    md5 BLOB,
    phash INTEGER,
    domain TEXT,
    dkey TEXT,
    width INTEGER,
    height INTEGER,
    bytes INTEGER,
    text TEXT,
    state TEXT,
    UNIQUE (session, hash)
) STRICT;
CREATE INDEX staged_in_order ON staged (session);
CREATE INDEX staged_by_alias ON staged (session, domain, dkey) WHERE domain IS NOT NULL;

-- Originals whose records were deleted, until they are removed from the store, or from this node.
CREATE TABLE gone (hash BLOB PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- What this copy remembers for itself: how far verification is, up to where superseded states were dropped, the last snapshot.
CREATE TABLE notes (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
