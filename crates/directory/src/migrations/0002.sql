-- Outgoing addresses and what goes by them, bounds, TLS policies, aliases, suspensions: one row a rule. They are read as
-- a whole at the start and never asked by what they say, so what a rule says is JSON. A secret stands apart from it.
CREATE TABLE directory.rule (
    kind     TEXT /* by octets */ NOT NULL,
    name     TEXT /* by octets */ NOT NULL,
    position BIGINT NOT NULL,
    body     TEXT NOT NULL,
    secret   TEXT,
    PRIMARY KEY (kind, name)
);

-- Addresses that an organisation does not write to any more.
CREATE TABLE directory.suppression (
    org     BIGINT NOT NULL REFERENCES directory.org (id),
    address TEXT /* by octets */ NOT NULL,
    class   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    source  TEXT NOT NULL,
    actor   TEXT NOT NULL,
    since   BIGINT NOT NULL,
    PRIMARY KEY (org, address)
);

-- What kind of mail comes by a login, and the pool that an organisation's mail leaves by unless a rule says otherwise.
ALTER TABLE directory.credential ADD COLUMN stream TEXT NOT NULL DEFAULT 'transactional';
ALTER TABLE directory.org ADD COLUMN pool TEXT;

-- What a smart host has beside hosts, TLS and one login, and its further secrets; both are JSON.
ALTER TABLE directory.smarthost ADD COLUMN more TEXT NOT NULL DEFAULT '{}';
ALTER TABLE directory.smarthost ADD COLUMN secrets TEXT NOT NULL DEFAULT '{}';
