-- The lease file. Triggers number every change, whoever makes it: a daemon, or an operator with the sqlite3 shell.

CREATE TABLE store (
    id       INTEGER NOT NULL, -- random: tells this file from another one put in its place
    revision INTEGER NOT NULL  -- number of the latest change of a lease
);

CREATE TABLE lease (
    key        TEXT PRIMARY KEY NOT NULL, -- 10.244.1.0-24
    attributes TEXT NOT NULL,             -- {"PublicIP":"192.0.2.1",..}
    expires_ms INTEGER,                   -- milliseconds since 1970; NULL is a reservation, which never ends
    revision   INTEGER NOT NULL DEFAULT 0 -- of the latest change; renewing is none
) WITHOUT ROWID;

CREATE INDEX lease_revision ON lease (revision);

CREATE TABLE removed (
    key      TEXT PRIMARY KEY NOT NULL, -- at most one row for each subnet ever used
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX removed_revision ON removed (revision);

CREATE TRIGGER lease_added AFTER INSERT ON lease BEGIN
    UPDATE store SET revision = revision + 1;
    UPDATE lease SET revision = (SELECT revision FROM store) WHERE key = NEW.key;
    DELETE FROM removed WHERE key = NEW.key;
END;

CREATE TRIGGER lease_changed AFTER UPDATE OF attributes ON lease WHEN NEW.attributes <> OLD.attributes BEGIN
    UPDATE store SET revision = revision + 1;
    UPDATE lease SET revision = (SELECT revision FROM store) WHERE key = NEW.key;
END;

CREATE TRIGGER lease_removed AFTER DELETE ON lease BEGIN
    UPDATE store SET revision = revision + 1;
    INSERT OR REPLACE INTO removed VALUES (OLD.key, (SELECT revision FROM store));
END;

-- Another subnet is another lease.
CREATE TRIGGER lease_renamed BEFORE UPDATE OF key ON lease BEGIN
    SELECT RAISE(ABORT, 'delete the lease and insert another');
END;
