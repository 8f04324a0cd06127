-- The queue in PostgreSQL: the data model of the embedded store, shared by the nodes of a cluster. See
-- docs/adr/0016-postgresql-engine.md for why it is like this. Times are milliseconds since 1970.

CREATE SCHEMA store;

-- A row for each node: what fences it, and sums that it alone adds to. Its own commits lock it first.
CREATE TABLE store.node (
    id          int PRIMARY KEY,
    fenced      bigint NOT NULL,            -- epochs up to this are over: what they write is refused
    epoch       bigint NOT NULL,            -- the epoch that wrote last
    clean       boolean NOT NULL,           -- it was closed
    batch       bigint NOT NULL DEFAULT 0,  -- the last group of that epoch: was it committed?
    last_id     bigint NOT NULL DEFAULT 0,  -- no message id of this node up to this one may be given again
    last_event  bigint NOT NULL DEFAULT 0,  -- the last number in its outbox,
    outbox_done bigint NOT NULL DEFAULT 0,  -- and up to where they have been handed on
    -- By how much this node's commits have changed what is stored: the sums over all nodes count.
    active      bigint NOT NULL DEFAULT 0,
    waiting     bigint NOT NULL DEFAULT 0,
    held        bigint NOT NULL DEFAULT 0,
    sandboxed   bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    live        bigint NOT NULL DEFAULT 0   -- octets of content
) WITH (fillfactor = 20);

CREATE TABLE store.queue (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org         bigint NOT NULL,
    stream      int NOT NULL,               -- 0 transactional, 1 bulk
    destination text NOT NULL,              -- as a route's `to`; mx:DOMAIN
    waiting     bigint NOT NULL DEFAULT 0,  -- how many deliveries wait,
    due         bigint,                     -- and when the first of them is due
    used        bigint NOT NULL,            -- about when somebody last asked for its number
    CONSTRAINT queue_key UNIQUE (org, stream, destination)
) WITH (fillfactor = 70);
CREATE INDEX queue_due ON store.queue (due) WHERE due IS NOT NULL;

CREATE TABLE store.message (
    id          bigint PRIMARY KEY,
    received_at bigint NOT NULL,
    sender      text NOT NULL,              -- empty: the null sender
    place       int NOT NULL,               -- where the content is: 0, the table content
    length      bigint NOT NULL,            -- octets of content
    crc         bigint NOT NULL,            -- CRC32C of content, length and id
    detail      bytea NOT NULL              -- everything else: codec.rs
);

CREATE TABLE store.delivery (
    message     bigint NOT NULL,
    idx         int NOT NULL,
    queue       bigint NOT NULL,
    state       int NOT NULL,               -- 0 active, 1 waiting, 2 held, 3 sandboxed, 4 quarantined
    due         bigint,                     -- only while it waits
    attempts    int NOT NULL DEFAULT 0,
    crashes     int NOT NULL DEFAULT 0,
    warned      boolean NOT NULL DEFAULT false,
    node        int,                        -- who has it in hand,
    epoch       bigint,                     -- in which of its lives
    reason      text,
    -- The only recipient, when there is but one; several are in the table recipient.
    n           int,
    address     text,
    status      int NOT NULL DEFAULT 0,
    detail      bytea,
    outcome     bytea,
    PRIMARY KEY (message, idx)
) WITH (fillfactor = 85);
-- What is due next in a queue. Active deliveries never touch it.
CREATE INDEX delivery_due ON store.delivery (queue, due, message, idx) WHERE due IS NOT NULL;
-- What a person has to look at.
CREATE INDEX delivery_kept ON store.delivery (state, message, idx) WHERE state >= 2;
-- What a node has in hand: to be taken over when it dies.
CREATE INDEX delivery_owned ON store.delivery (node, epoch) WHERE node IS NOT NULL;

CREATE TABLE store.recipient (
    message     bigint NOT NULL,
    delivery    int NOT NULL,
    n           int NOT NULL,               -- number within the message
    address     text NOT NULL,
    status      int NOT NULL DEFAULT 0,     -- 0 pending, 1 delivered, 2 failed, 3 removed
    detail      bytea,                      -- NOTIFY and ORCPT, when given
    outcome     bytea,                      -- of the last attempt
    PRIMARY KEY (message, delivery, n)
) WITH (fillfactor = 85);

-- Content in pieces of 256 KiB at most, by the day that its message's id names. Not compressed: mail hardly shrinks, and
-- the processor has better things to do.
CREATE TABLE store.content (
    day         int NOT NULL,               -- days since 1970
    message     bigint NOT NULL,
    n           int NOT NULL,
    data        bytea NOT NULL,
    PRIMARY KEY (day, message, n)
) PARTITION BY RANGE (day);
ALTER TABLE store.content ALTER COLUMN data SET STORAGE EXTERNAL;
-- For days that nobody has made a partition for.
CREATE TABLE store.content_other PARTITION OF store.content DEFAULT;
ALTER TABLE store.content_other ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE store.dedupe (
    org         bigint NOT NULL,
    key         bytea NOT NULL,
    expires     bigint NOT NULL,
    message     bigint NOT NULL,
    PRIMARY KEY (org, key)
);
CREATE INDEX dedupe_expires ON store.dedupe (expires);

-- Events on their way to the history of the node that wrote them. A row has many; its number is that of the last.
CREATE TABLE store.outbox (
    node        int NOT NULL,
    seq         bigint NOT NULL,
    event       bytea NOT NULL,
    PRIMARY KEY (node, seq)
);

-- Small things that a node keeps here.
CREATE TABLE store.note (
    node        int NOT NULL,
    name        text NOT NULL,
    value       bytea NOT NULL,
    PRIMARY KEY (node, name)
);

-- Rows come and go quickly: they are swept sooner than by default, which waits for a fifth of the table.
ALTER TABLE store.delivery SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);
ALTER TABLE store.message SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE store.outbox SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE store.queue SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE store.content_other SET (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
