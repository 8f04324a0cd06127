-- What operators have changed, for the other nodes to hear: src/pg/told.rs. A row is a commit's.
CREATE TABLE store.told (
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    node        int NOT NULL,               -- who did it
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changes     bytea NOT NULL,
    PRIMARY KEY (seq) INCLUDE (node)
);
CREATE INDEX told_at ON store.told (at);
ALTER TABLE store.told SET (autovacuum_vacuum_scale_factor = 0.05);

-- Whose turn it was last to do what one node does for all.
CREATE TABLE store.turn (
    name        text PRIMARY KEY,
    at          timestamptz NOT NULL
);

-- Content in object storage: message.place is 1. Few and large.
CREATE INDEX message_placed ON store.message (id) INCLUDE (length) WHERE place <> 0;
