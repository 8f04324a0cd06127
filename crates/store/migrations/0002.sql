-- What a start has to know, and what a horizon asks for, without going through all rows: sums that the commits keep which
-- change them (docs/adr/0011).

-- How each content segment is referred to. A segment without a row here is an orphan.
CREATE TABLE segment (
    id      INTEGER PRIMARY KEY,
    records INTEGER NOT NULL,               -- messages that refer to it,
    live    INTEGER NOT NULL,               -- octets of their records, headers included
    reach   INTEGER NOT NULL,               -- where the last record ever referred to ends
    first   INTEGER NOT NULL,               -- the smallest and the largest message id ever referred to
    last    INTEGER NOT NULL
);
INSERT INTO segment SELECT segment, count(*), sum(length) + 24 * count(*), max(offset + length), min(id), max(id)
    FROM message GROUP BY segment;

-- Deliveries by state, among the facts that commits write anyway.
INSERT INTO meta SELECT s.name, (SELECT count(*) FROM delivery d WHERE d.state = s.state) FROM
    (SELECT 0 AS state, 'active' AS name UNION ALL SELECT 1, 'waiting' UNION ALL SELECT 2, 'held'
     UNION ALL SELECT 3, 'sandboxed' UNION ALL SELECT 4, 'quarantined') s;

-- How many deliveries of a queue wait, and when the first of them is due.
ALTER TABLE queue ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN due INTEGER;
UPDATE queue SET
    waiting = (SELECT count(*) FROM delivery d WHERE d.queue = queue.id AND d.due IS NOT NULL),
    due = (SELECT min(due) FROM delivery d WHERE d.queue = queue.id AND d.due IS NOT NULL);
CREATE INDEX queue_due ON queue (due) WHERE due IS NOT NULL;

-- The only recipient of a delivery stands in its row; several, and those of older rows, in the table recipient.
ALTER TABLE delivery ADD COLUMN n INTEGER;
ALTER TABLE delivery ADD COLUMN address TEXT;
ALTER TABLE delivery ADD COLUMN status INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN detail BLOB;
ALTER TABLE delivery ADD COLUMN outcome BLOB;

-- What a start has to put back, and what the run before it had paged in.
CREATE INDEX delivery_active ON delivery (queue) WHERE state = 0;
CREATE INDEX delivery_claimed ON delivery (claimed) WHERE claimed IS NOT NULL;
CREATE INDEX delivery_kept_in ON delivery (queue) WHERE state >= 2;

-- Small things that others keep here.
CREATE TABLE note (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
