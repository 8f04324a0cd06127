-- Organisations, credentials, domains, keys, routing, and the log of changes.
-- Written in the subset that SQLite and PostgreSQL share, but for the name of the schema and `/* by octets */`, which
-- stands for a collation. Times are milliseconds since 1970; lists are JSON.

CREATE TABLE directory.counter (
    name  TEXT /* by octets */ PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO directory.counter (name, value) VALUES ('id', 1);

-- Random values made once for this installation.
CREATE TABLE directory.secret (
    name  TEXT /* by octets */ PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE directory.org (
    id      BIGINT PRIMARY KEY,
    name    TEXT /* by octets */ NOT NULL UNIQUE,
    trusted BIGINT NOT NULL,
    state   TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE directory.domain (
    name    TEXT /* by octets */ PRIMARY KEY,
    org     BIGINT NOT NULL REFERENCES directory.org (id),
    created BIGINT NOT NULL
);

CREATE TABLE directory.credential (
    id           BIGINT PRIMARY KEY,
    login        TEXT NOT NULL,
    login_folded TEXT /* by octets */ NOT NULL UNIQUE,
    org          BIGINT NOT NULL REFERENCES directory.org (id),
    from_domains TEXT NOT NULL,
    networks     TEXT NOT NULL,
    enabled      BIGINT NOT NULL,
    made_here    BIGINT NOT NULL,
    scram        TEXT,
    argon2       TEXT,
    generation   BIGINT NOT NULL,
    created      BIGINT NOT NULL
);

CREATE TABLE directory.api_key (
    id           BIGINT PRIMARY KEY,
    name         TEXT NOT NULL,
    name_folded  TEXT /* by octets */ NOT NULL UNIQUE,
    org          BIGINT NOT NULL REFERENCES directory.org (id),
    scope        TEXT NOT NULL,
    from_domains TEXT NOT NULL,
    hash         TEXT /* by octets */ NOT NULL UNIQUE,
    enabled      BIGINT NOT NULL,
    created      BIGINT NOT NULL
);

CREATE TABLE directory.route (
    id       BIGINT PRIMARY KEY,
    position BIGINT NOT NULL,
    domains  TEXT NOT NULL,
    senders  TEXT NOT NULL,
    target   TEXT NOT NULL
);

CREATE TABLE directory.smarthost (
    name     TEXT /* by octets */ PRIMARY KEY,
    hosts    TEXT NOT NULL,
    tls      TEXT NOT NULL,
    username TEXT,
    password TEXT
);

-- Who changed what. Never deleted here.
CREATE TABLE directory.audit (
    id      BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    what    TEXT /* by octets */ NOT NULL,
    name    TEXT /* by octets */ NOT NULL,
    earlier TEXT,
    later   TEXT
);
CREATE INDEX audit_name ON directory.audit (what, name, id);
