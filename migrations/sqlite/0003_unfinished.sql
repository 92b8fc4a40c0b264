-- Unfinished alerts by id: a start looks at all of them, page by page and the latest first. Without an index of their own
-- each page was a walk through everything that is due, and those in hand waited behind it.
CREATE INDEX alerts_unfinished ON alerts (id) WHERE next_action_at IS NOT NULL;
