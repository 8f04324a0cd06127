//! The tables of the cluster.

/// Each is one version; see [`postgres::migrate`]. Never change one that has been released.
pub(crate) const STEPS: &[&str] = &["
CREATE SCHEMA cluster;
-- Of all nodes: a number that is used again must not begin with an epoch that was declared over.
CREATE SEQUENCE cluster.epoch;
CREATE TABLE cluster.node (
    id integer PRIMARY KEY CHECK (id BETWEEN 1 AND 1023),
    name text NOT NULL UNIQUE,
    epoch bigint NOT NULL,
    beat bigint NOT NULL DEFAULT 0,
    -- up, left or dead
    state text NOT NULL CHECK (state IN ('up', 'left', 'dead')),
    draining boolean NOT NULL DEFAULT false,
    -- somebody has still to give back what the epochs before this one had in hand
    owed boolean NOT NULL DEFAULT false,
    address text NOT NULL,
    version text NOT NULL,
    -- for people; nothing is decided by it
    beat_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE TABLE cluster.role (
    name text PRIMARY KEY,
    -- who has it; 0: nobody
    node integer NOT NULL,
    epoch bigint NOT NULL,
    -- goes up whenever it changes hands
    term bigint NOT NULL
);
CREATE TABLE cluster.borrowed (
    key text PRIMARY KEY,
    -- which server it was at the last change: another one may have another clock
    server text NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE cluster.loan (
    key text NOT NULL REFERENCES cluster.borrowed ON DELETE CASCADE,
    node integer NOT NULL,
    amount bigint NOT NULL,
    wanted bigint NOT NULL,
    -- when it last got something, for taking turns
    served timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    PRIMARY KEY (key, node)
) WITH (fillfactor = 50);
CREATE INDEX loan_expires ON cluster.loan (expires)
"];
