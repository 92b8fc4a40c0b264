-- What colleges have set up beside their configuration: one row a college. `body` is the whole aggregate as JSON.
CREATE TABLE rosters (
    organisation TEXT    NOT NULL PRIMARY KEY,
    version      INTEGER NOT NULL,
    body         TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
