-- Every index of what is live has a name, so that a very large commit can build them anew; and the texts are told again, with marks
-- between their parts.
DROP TRIGGER words_come;
DROP TRIGGER words_go;
CREATE TABLE named (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    since INTEGER NOT NULL,
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
INSERT INTO named
SELECT id, hash, since, seq, md5, phash, domain, dkey, width, height, bytes, told(state), state FROM records ORDER BY id;
DROP TABLE records;
ALTER TABLE named RENAME TO records;
CREATE UNIQUE INDEX records_by_hash ON records (hash);
CREATE UNIQUE INDEX records_by_seq ON records (seq);
CREATE INDEX records_by_md5 ON records (md5) WHERE md5 IS NOT NULL;
CREATE UNIQUE INDEX records_by_alias ON records (domain, dkey) WHERE domain IS NOT NULL;
CREATE INDEX records_by_band_0 ON records (phash & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_1 ON records (phash >> 16 & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_2 ON records (phash >> 32 & 65535) WHERE phash IS NOT NULL;
CREATE INDEX records_by_band_3 ON records (phash >> 48 & 65535) WHERE phash IS NOT NULL;
INSERT INTO words (words) VALUES ('rebuild');
CREATE TRIGGER words_come AFTER INSERT ON records BEGIN
    INSERT INTO words (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER words_go AFTER DELETE ON records BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
END;
UPDATE past SET text = told(state);
UPDATE staged SET text = told(state) WHERE state IS NOT NULL;
