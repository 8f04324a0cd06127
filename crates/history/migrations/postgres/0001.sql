-- What became of every message, shared by the nodes of a cluster. A day has a partition of each of message, event and part,
-- dropped whole when it has been over for as long as history is kept. Days are numbered since 1970, in UTC. A row's day
-- is never before that of its message's id, so that whoever looks for a message need not look at older ones.

CREATE SCHEMA history;

-- How far the history has the outbox of each node.
CREATE TABLE history.node (
    id          int PRIMARY KEY,
    last        bigint NOT NULL
) WITH (fillfactor = 20);

-- One row a message: how it was accepted, and what was told in the same batch of its delivery. Rows are written once: a
-- row that grew when the delivery is told a moment later would be written anew, its old place being taken until then.
CREATE TABLE history.message (
    id          bigint NOT NULL,
    day         int NOT NULL,
    open        int NOT NULL,               -- recipients whose delivery is not in the row
    body        bytea NOT NULL,             -- record.rs
    PRIMARY KEY (id, day)
) PARTITION BY RANGE (day);

-- Everything else.
CREATE TABLE history.event (
    message     bigint NOT NULL,
    number      bigint NOT NULL,            -- of the outbox; its node in the upper 16 bits
    day         int NOT NULL,
    delivered   int NOT NULL,               -- recipients, when it is an attempt that delivered to all it tried
    body        bytea NOT NULL,
    transcript  bytea                       -- compressed
) PARTITION BY RANGE (day);
CREATE INDEX event_message ON history.event (message);
ALTER TABLE history.event ALTER COLUMN transcript SET STORAGE EXTERNAL;

-- How messages are found by address: sorted runs of hashes, see key.rs. A random index would write a page for each key.
CREATE TABLE history.run (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day         int NOT NULL,
    node        int NOT NULL,               -- who merges it
    level       int NOT NULL,
    entries     bigint NOT NULL
);
CREATE INDEX run_day ON history.run (day);

CREATE TABLE history.part (
    run         bigint NOT NULL,
    first       bigint NOT NULL,            -- hash
    first_id    bigint NOT NULL,            -- and message of its first entry
    day         int NOT NULL,
    entries     bytea NOT NULL,
    PRIMARY KEY (run, first, first_id, day)
) PARTITION BY RANGE (day);
ALTER TABLE history.part ALTER COLUMN entries SET STORAGE PLAIN;

-- For days that nobody has made a partition for.
CREATE TABLE history.message_other PARTITION OF history.message DEFAULT;
CREATE TABLE history.event_other PARTITION OF history.event DEFAULT;
ALTER TABLE history.event_other ALTER COLUMN transcript SET STORAGE EXTERNAL;
CREATE TABLE history.part_other PARTITION OF history.part DEFAULT;
ALTER TABLE history.part_other ALTER COLUMN entries SET STORAGE PLAIN;
ALTER TABLE history.run SET (autovacuum_vacuum_scale_factor = 0.05);
