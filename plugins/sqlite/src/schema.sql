-- What the file holds. The tables are for the plugin; people look through the views at the end.
--
-- A task is spread over three tables, so that what never changes is written once: `bodies` has what
-- its producer gave, `tasks` how far it has come, `results` what its worker handed in. They share
-- `seq`, a number that grows with every task and is never given out twice.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queues (
  queue INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  command TEXT NOT NULL, -- in lower case
  ready INTEGER NOT NULL,
  delayed INTEGER NOT NULL,
  leased INTEGER NOT NULL,
  dead INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  unreadable INTEGER NOT NULL,
  UNIQUE (tenant, command)
) STRICT;

CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  place INTEGER NOT NULL, -- 0 ready, 1 delayed, 2 leased, 3 dead, 4 completed, 5 failed, 6 unreadable
  rank INTEGER NOT NULL, -- 9 - priority if ready, when it is due if delayed or leased
  arrival INTEGER NOT NULL, -- grows with every move
  created_at INTEGER NOT NULL, -- this and all other times in milliseconds since 1970
  updated_at INTEGER NOT NULL,
  look_at INTEGER, -- when to look whether its retention has ended, if not in the order of seq
  status INTEGER NOT NULL,
  location INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  lease_until INTEGER,
  id TEXT NOT NULL,
  worker TEXT NOT NULL,
  error TEXT NOT NULL,
  result_key TEXT NOT NULL
) STRICT;

-- Every place of every queue in its order: the next task to claim, to come due, to expire, to list.
CREATE INDEX tasks_in_order ON tasks (queue, place, rank, arrival);
CREATE INDEX tasks_to_look_at ON tasks (look_at) WHERE look_at IS NOT NULL;

CREATE TABLE bodies (
  seq INTEGER PRIMARY KEY,
  command TEXT NOT NULL, -- as the producer spelled it
  priority INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  webhook TEXT NOT NULL,
  trace_parent TEXT NOT NULL,
  trace_state TEXT NOT NULL,
  extensions BLOB, -- fields of later versions of the interface
  payload TEXT NOT NULL
) STRICT;

CREATE TABLE results (
  seq INTEGER PRIMARY KEY,
  status INTEGER NOT NULL,
  completed_at INTEGER NOT NULL,
  error TEXT NOT NULL,
  artifacts TEXT NOT NULL, -- a JSON array, or empty
  extensions BLOB,
  result TEXT NOT NULL
) STRICT;

-- Which task has which id: hashes of ids, by a secret of this file in `meta`. Ids are random, so each
-- would touch a page of its own. They are written here in bulk and in order; those of the newest tasks,
-- from `meta.indexed` on, are only in `tasks`, and in the plugin's memory. A task that is found has to be
-- looked at: its id may be another, and an entry may outlive its task for a while.
CREATE TABLE ids (
  hash INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (hash, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('id_secret_0', random()), ('id_secret_1', random());

CREATE TABLE idempotency (
  number INTEGER PRIMARY KEY,
  until INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  UNIQUE (tenant, key)
) STRICT;

CREATE TABLE subscriptions (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  worker TEXT NOT NULL,
  callback_url TEXT NOT NULL,
  event_types TEXT NOT NULL, -- a JSON array of commands
  delivery_mode INTEGER NOT NULL,
  group_id TEXT NOT NULL,
  min_interval_seconds INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  notified_at INTEGER,
  extensions BLOB
) STRICT;

CREATE INDEX subscriptions_of_worker ON subscriptions (tenant, worker);
CREATE INDEX subscriptions_by_end ON subscriptions (expires_at);

CREATE TABLE subscribed (
  tenant TEXT NOT NULL,
  command TEXT NOT NULL, -- in lower case, or *
  subscription TEXT NOT NULL,
  PRIMARY KEY (tenant, command, subscription)
) STRICT, WITHOUT ROWID;

CREATE TABLE turns (
  tenant TEXT NOT NULL,
  command TEXT NOT NULL,
  group_id TEXT NOT NULL,
  next INTEGER NOT NULL,
  PRIMARY KEY (tenant, command, group_id)
) STRICT, WITHOUT ROWID;

CREATE VIEW codeq_queues AS
SELECT tenant, command, ready, delayed, leased AS in_progress, dead AS dlq, completed, failed, unreadable
FROM queues ORDER BY tenant, command;

CREATE VIEW codeq_tasks AS
SELECT
  t.id,
  q.tenant,
  b.command,
  CASE t.place WHEN 0 THEN 'ready' WHEN 1 THEN 'delayed' WHEN 2 THEN 'leased' WHEN 3 THEN 'dead'
    WHEN 4 THEN 'completed' WHEN 5 THEN 'failed' ELSE 'unreadable' END AS place,
  b.priority,
  t.attempts,
  b.max_attempts,
  t.worker,
  strftime('%Y-%m-%dT%H:%M:%fZ', t.lease_until / 1000.0, 'unixepoch') AS lease_until,
  CASE t.place WHEN 1 THEN strftime('%Y-%m-%dT%H:%M:%fZ', t.rank / 1000.0, 'unixepoch') END AS visible_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', t.created_at / 1000.0, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', t.updated_at / 1000.0, 'unixepoch') AS updated_at,
  t.error,
  b.payload,
  r.result
FROM tasks t
JOIN queues q USING (queue)
LEFT JOIN bodies b USING (seq)
LEFT JOIN results r USING (seq);

CREATE VIEW codeq_subscriptions AS
SELECT id, tenant, worker, callback_url, event_types,
  CASE delivery_mode WHEN 0 THEN 'fanout' WHEN 1 THEN 'group' ELSE 'hash' END AS delivery_mode,
  group_id, min_interval_seconds,
  strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch') AS expires_at
FROM subscriptions;
