-- readable by: 3
-- One row that every change takes: whoever has it is the only one to change the directory until the commit. It says which
-- state this is and which numbers were given last.
CREATE TABLE directory.head (
    one     BIGINT PRIMARY KEY,
    version BIGINT NOT NULL,
    batch   TEXT NOT NULL,
    ids     BIGINT NOT NULL,
    audits  BIGINT NOT NULL,
    turn    BIGINT NOT NULL
);
INSERT INTO directory.head (one, version, batch, ids, audits, turn)
    SELECT 1, 0, '', value, (SELECT coalesce(max(id), 0) FROM directory.audit), 0 FROM directory.counter WHERE name = 'id';
DROP TABLE directory.counter;

-- What the last commits touched, as JSON: another node reads that and no more.
CREATE TABLE directory.change (
    version BIGINT PRIMARY KEY,
    batch   TEXT NOT NULL,
    touched TEXT NOT NULL
);
INSERT INTO directory.change (version, batch, touched) VALUES (0, '', '[]');
