-- Rows of the queue. Content is in segment files; see src/content.
-- Inserts go to the right edge of every tree: ids grow with time.

-- Facts about the store itself: see src/sqlite/schema.rs.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE queue (
    id          INTEGER PRIMARY KEY,
    org         INTEGER NOT NULL,
    stream      INTEGER NOT NULL,           -- 0 transactional, 1 bulk
    destination TEXT NOT NULL,              -- as a route's `to`; mx:DOMAIN
    UNIQUE (org, stream, destination)
);

CREATE TABLE message (
    id          INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,           -- milliseconds since 1970
    sender      TEXT NOT NULL,              -- empty: the null sender
    segment     INTEGER NOT NULL,           -- where the content is: file,
    offset      INTEGER NOT NULL,           -- place of the content in it,
    length      INTEGER NOT NULL,           -- octets,
    crc         INTEGER NOT NULL,           -- CRC32C of the record
    detail      BLOB NOT NULL               -- everything else: codec.rs
);

CREATE TABLE delivery (
    message  INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    queue    INTEGER NOT NULL,
    state    INTEGER NOT NULL,              -- 0 active, 1 waiting, 2 held, 3 sandboxed, 4 quarantined
    due      INTEGER,                       -- only while it waits
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes  INTEGER NOT NULL DEFAULT 0,
    warned   INTEGER NOT NULL DEFAULT 0,
    claimed  INTEGER,                       -- the run that paged it in, after an unclean start
    reason   TEXT,
    PRIMARY KEY (message, idx)
) WITHOUT ROWID;

-- Active deliveries never touch it.
CREATE INDEX delivery_due ON delivery (queue, due, message, idx) WHERE due IS NOT NULL;
-- What a person has to look at.
CREATE INDEX delivery_kept ON delivery (state, message, idx) WHERE state >= 2;

CREATE TABLE recipient (
    message  INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    n        INTEGER NOT NULL,              -- number within the message
    address  TEXT NOT NULL,
    status   INTEGER NOT NULL DEFAULT 0,    -- 0 pending, 1 delivered, 2 failed, 3 removed
    detail   BLOB,                          -- NOTIFY and ORCPT, when given
    outcome  BLOB,                          -- of the last attempt
    PRIMARY KEY (message, delivery, n)
) WITHOUT ROWID;

-- Events on their way to the history.
CREATE TABLE outbox (
    seq   INTEGER PRIMARY KEY,
    event BLOB NOT NULL
);

CREATE TABLE dedupe (
    org     INTEGER NOT NULL,
    key     BLOB NOT NULL,
    expires INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (org, key)
) WITHOUT ROWID;

CREATE INDEX dedupe_expires ON dedupe (expires);
