-- Facts that must stay as they were when the database was begun, such as which key its keyed hashes are made with: with
-- another one, no student would be found, and every consent would be missed in silence.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
