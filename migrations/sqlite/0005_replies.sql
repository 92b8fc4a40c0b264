-- Whose reply it is, as JSON; NULL for what came with an event.
ALTER TABLE event_details ADD COLUMN reply TEXT;

-- The case that a phone was told of and that somebody took or closed last: what a reply means when none waits for it.
CREATE TABLE last_cases (
    organisation TEXT NOT NULL,
    address      BLOB NOT NULL,
    alert        BLOB NOT NULL,
    PRIMARY KEY (organisation, address)
) STRICT, WITHOUT ROWID;
