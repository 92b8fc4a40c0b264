-- The first schema. Times are microseconds since 1970-01-01T00:00:00Z; hashes and ids are raw bytes.
-- Whatever is personal is a keyed hash or sealed before it gets here.

-- One row an alert. `body` is the whole aggregate as JSON; the other columns repeat what look-ups need.
CREATE TABLE alerts (
    id             BLOB    NOT NULL UNIQUE,
    organisation   TEXT    NOT NULL,
    reference      TEXT    NOT NULL,
    subject        BLOB    NOT NULL,
    kind           TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    open           INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    opened_at      INTEGER NOT NULL,
    next_action_at INTEGER,
    body           TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX alerts_reference ON alerts (organisation, reference);
-- One open alert a student: two events of one instant cannot open two.
CREATE UNIQUE INDEX alerts_open_subject ON alerts (organisation, subject) WHERE open = 1;
CREATE INDEX alerts_due ON alerts (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX alerts_open_state ON alerts (organisation, state, opened_at, id) WHERE open = 1;
CREATE INDEX alerts_newest ON alerts (organisation, opened_at, id);

-- Which escalating alerts have told a number: finds the case that a reply is about.
CREATE TABLE alert_addresses (
    alert        BLOB NOT NULL,
    address      BLOB NOT NULL,
    organisation TEXT NOT NULL,
    PRIMARY KEY (alert, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_addresses_by_address ON alert_addresses (organisation, address, alert);

-- Which alert a message of the provider's belongs to.
CREATE TABLE provider_messages (
    provider_id TEXT NOT NULL PRIMARY KEY,
    alert       BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What was written along with an event: sealed.
CREATE TABLE event_details (
    alert       BLOB    NOT NULL,
    event       BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    message     TEXT,
    metadata    TEXT,
    PRIMARY KEY (alert, event)
) STRICT, WITHOUT ROWID;

-- Hash chains. Append-only: nothing in the service updates or deletes a row.
CREATE TABLE audit (
    stream TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    entry  TEXT    NOT NULL,
    hash   BLOB    NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE consents (
    organisation TEXT    NOT NULL,
    subject      BLOB    NOT NULL,
    version      INTEGER NOT NULL,
    body         TEXT    NOT NULL,
    PRIMARY KEY (organisation, subject)
) STRICT, WITHOUT ROWID;

-- Data keys, wrapped by a master key. Deleting a row erases the person.
CREATE TABLE data_keys (
    organisation TEXT    NOT NULL,
    person       BLOB    NOT NULL,
    key_id       TEXT    NOT NULL,
    wrapped      TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (organisation, person)
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    key        BLOB    NOT NULL PRIMARY KEY,
    body       BLOB    NOT NULL,
    status     INTEGER NOT NULL,
    answer     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_age ON answers (created_at);

CREATE TABLE probe (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
