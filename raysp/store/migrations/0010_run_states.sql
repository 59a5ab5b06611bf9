-- Runs have a row from their submission on, before their game is described: game_id and n are NULL until then.
-- status: queued, running, paused, cancelled, interrupted, failed, done.

ALTER TABLE runs ALTER COLUMN game_id DROP NOT NULL;
ALTER TABLE runs ALTER COLUMN n DROP NOT NULL;
ALTER TABLE runs ADD COLUMN submitted TIMESTAMP;  -- to a service, which continues the run whatever dies; NULL: run by the process that asked
ALTER TABLE runs ADD COLUMN desired TEXT;         -- running, paused, cancelled: what the service works towards
ALTER TABLE runs ADD COLUMN priority INTEGER;     -- 0 to 9, 9 is served first
ALTER TABLE runs ADD COLUMN progress TEXT;        -- JSON: of the run as a whole
