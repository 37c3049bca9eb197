-- The spool of reconify-agent: what producers write into, and the little that the
-- agent keeps beside it. schema/README.md is the producer's manual.
--
-- Runs in every sqlite3 from 3.34 on. The agent's own connection fires no triggers:
-- they speak to producers alone, so that a row which could never be sent is refused
-- at once, with a sentence, to the one who can mend it; and they count.
--
-- A record counts for 128 bytes and the bytes of its text columns but uuid; the
-- expression that computes this stands here once for NEW, for OLD and for a row, and
-- must agree with spool/record.c to the byte.

-- What waits to be sent, and only that. Insert here.
CREATE TABLE interactions (
  model_id         TEXT,
  request_body     TEXT,
  response_body    TEXT,
  request_id       TEXT,
  request_at       INTEGER DEFAULT (
    CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
  response_at      INTEGER,
  session          TEXT,
  session_timeout  INTEGER,
  user_id          TEXT,
  is_authenticated INTEGER,
  first_name       TEXT,
  last_name        TEXT,
  email            TEXT,
  phone            TEXT,
  gender           TEXT,
  content_type     TEXT,
  accept           TEXT,
  request_extra    TEXT,
  app              TEXT DEFAULT 'default',
  format           TEXT DEFAULT 'bedrock',
  type             TEXT DEFAULT 'chat',
  key              TEXT,
  uuid             TEXT DEFAULT (lower(hex(randomblob(16)))),
  spooled_at       INTEGER DEFAULT (
    CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
  id               INTEGER PRIMARY KEY AUTOINCREMENT
);

-- A producer's own identity for a row, so that an insert can be repeated safely.
CREATE UNIQUE INDEX interactions_key ON interactions (key) WHERE key IS NOT NULL;

-- What will never be taken as it is, with the reason. Kept until a person decides.
CREATE TABLE dead_letters (
  model_id         TEXT,
  request_body     TEXT,
  response_body    TEXT,
  request_id       TEXT,
  request_at       INTEGER,
  response_at      INTEGER,
  session          TEXT,
  session_timeout  INTEGER,
  user_id          TEXT,
  is_authenticated INTEGER,
  first_name       TEXT,
  last_name        TEXT,
  email            TEXT,
  phone            TEXT,
  gender           TEXT,
  content_type     TEXT,
  accept           TEXT,
  request_extra    TEXT,
  app              TEXT,
  format           TEXT,
  type             TEXT,
  key              TEXT,
  uuid             TEXT,
  spooled_at       INTEGER,
  id               INTEGER PRIMARY KEY,
  reason           TEXT,    -- a code and a sentence
  http_status      INTEGER, -- of the last answer
  attempts         INTEGER,
  died_at          INTEGER, -- milliseconds
  server_said      BLOB     -- the beginning of the last answer
);

-- Where every accepted record went:
--   accepted = delivered + dead + discarded + dropped + purged + removed + waiting.
-- in_bytes - out_bytes is what waiting and dead rows count for against max_spool;
-- in_bytes - in_bytes_before is what the record inserted last counts for.
CREATE TABLE ledger (
  one             INTEGER PRIMARY KEY CHECK (one = 1),
  accepted        INTEGER NOT NULL DEFAULT 0,
  delivered       INTEGER NOT NULL DEFAULT 0,
  dead            INTEGER NOT NULL DEFAULT 0,
  discarded       INTEGER NOT NULL DEFAULT 0,
  dropped         INTEGER NOT NULL DEFAULT 0,
  purged          INTEGER NOT NULL DEFAULT 0,
  removed         INTEGER NOT NULL DEFAULT 0,
  in_bytes        INTEGER NOT NULL DEFAULT 0,
  out_bytes       INTEGER NOT NULL DEFAULT 0,
  in_bytes_before INTEGER NOT NULL DEFAULT 0,
  max_spool       INTEGER NOT NULL DEFAULT 1073741824,
  max_record      INTEGER NOT NULL DEFAULT 67108864,
  drop_oldest     INTEGER NOT NULL DEFAULT 0
);
INSERT INTO ledger (one) VALUES (1);

-- Keys of dead letters (delivered_at NULL) and of what was delivered lately.
CREATE TABLE known_keys (
  key          PRIMARY KEY,
  delivered_at INTEGER
) WITHOUT ROWID;

-- Failures that were a record's own.
CREATE TABLE attempts (
  id       INTEGER PRIMARY KEY,
  attempts INTEGER
);

-- The uuids of records that were imported from another spool, for ever: importing them
-- once more adds nothing, also when they have been delivered.
CREATE TABLE imported (
  uuid PRIMARY KEY
) WITHOUT ROWID;

-- The agent's notes to itself.
CREATE TABLE agent_state (
  name  TEXT PRIMARY KEY,
  value TEXT
) WITHOUT ROWID;

-- A row that could never be sent is refused, also under INSERT OR IGNORE, which
-- would silently pass over a row that fails a CHECK.
CREATE TRIGGER interactions_check BEFORE INSERT ON interactions
BEGIN
  SELECT CASE
    WHEN NEW.request_body IS NULL THEN
      RAISE(ABORT, 'request_body is missing: give the body as it was sent, it may be empty')
    WHEN NEW.response_body IS NULL THEN
      RAISE(ABORT, 'response_body is missing: give the JSON text that the model answered')
    WHEN NOT json_valid(CAST(NEW.response_body AS TEXT)) THEN
      RAISE(ABORT, 'response_body is not valid JSON: give exactly the text that the model answered')
    WHEN NEW.request_at IS NOT NULL
         AND (typeof(NEW.request_at) <> 'integer' OR NEW.request_at < 0) THEN
      RAISE(ABORT, 'request_at is not a whole number, 0 or more: give milliseconds since 1970')
    WHEN NEW.response_at IS NOT NULL
         AND (typeof(NEW.response_at) <> 'integer' OR NEW.response_at < 0) THEN
      RAISE(ABORT, 'response_at is not a whole number, 0 or more: give milliseconds since 1970')
    WHEN NEW.spooled_at IS NOT NULL
         AND (typeof(NEW.spooled_at) <> 'integer' OR NEW.spooled_at < 0) THEN
      RAISE(ABORT, 'spooled_at is not a whole number, 0 or more: give milliseconds since 1970')
    -- A clock that stands before 2001 is wrong, and no judge of times.
    WHEN NEW.request_at BETWEEN 1000000000 AND 10000000000 AND strftime('%Y', 'now') > '2001' THEN
      RAISE(ABORT, 'request_at looks like seconds: give milliseconds since 1970')
    WHEN NEW.response_at BETWEEN 1000000000 AND 10000000000 AND strftime('%Y', 'now') > '2001' THEN
      RAISE(ABORT, 'response_at looks like seconds: give milliseconds since 1970')
    WHEN NEW.spooled_at BETWEEN 1000000000 AND 10000000000 AND strftime('%Y', 'now') > '2001' THEN
      RAISE(ABORT, 'spooled_at looks like seconds: give milliseconds since 1970')
    WHEN NEW.session_timeout IS NOT NULL
         AND (typeof(NEW.session_timeout) <> 'integer' OR NEW.session_timeout < 0) THEN
      RAISE(ABORT, 'session_timeout is not a whole number, 0 or more: give minutes')
    WHEN NEW.is_authenticated NOT IN (0, 1) THEN
      RAISE(ABORT, 'is_authenticated is neither 0 nor 1')
    WHEN NEW.user_id IS NULL AND NEW.email IS NULL AND coalesce(NEW.is_authenticated,
           NEW.first_name, NEW.last_name, NEW.phone, NEW.gender) IS NOT NULL THEN
      RAISE(ABORT, 'user_id or email is needed as soon as any other column about the user is set')
    WHEN length(CAST(NEW.uuid AS BLOB)) <> 32 OR CAST(NEW.uuid AS TEXT) GLOB '*[^0-9a-f]*' THEN
      RAISE(ABORT, 'uuid is not 32 lower-case hex digits: leave it out, and one is made')
    WHEN NEW.id > 1000000000000000 THEN
      RAISE(ABORT, 'id is above 1000000000000000: leave it out, and one is given')
    WHEN EXISTS (SELECT 1 FROM dead_letters WHERE id = NEW.id) THEN
      RAISE(ABORT, 'id is that of a dead letter: leave it out, and one is given')
    WHEN CAST(ifnull(NEW.format, 'bedrock') AS TEXT) = 'bedrock' THEN CASE
      WHEN NEW.model_id IS NULL THEN
        RAISE(ABORT, 'model_id is missing: give the modelId that was called')
      WHEN NEW.request_extra IS NULL THEN NULL
      WHEN NOT json_valid(CAST(NEW.request_extra AS TEXT)) THEN
        RAISE(ABORT, 'request_extra is not valid JSON: give an object with the other fields of the call')
      WHEN json_type(CAST(NEW.request_extra AS TEXT)) <> 'object' THEN
        RAISE(ABORT, 'request_extra is not a JSON object: give an object with the other fields of the call')
      WHEN EXISTS (SELECT 1 FROM json_each(CAST(NEW.request_extra AS TEXT))
                   WHERE key IN ('modelId', 'contentType', 'accept', 'body')) THEN
        RAISE(ABORT, 'request_extra has a member modelId, contentType, accept or body: these have columns of their own')
      END
    WHEN CAST(NEW.format AS TEXT) = '' THEN
      RAISE(ABORT, 'format is empty: leave it out for bedrock, or name the format')
    WHEN NOT json_valid(CAST(NEW.request_body AS TEXT)) THEN
      RAISE(ABORT, 'request_body is not valid JSON, as every format but bedrock requires')
    WHEN coalesce(NEW.model_id, NEW.request_id, NEW.content_type, NEW.accept,
                  NEW.request_extra) IS NOT NULL THEN
      RAISE(ABORT, 'model_id, request_id, content_type, accept and request_extra belong to format bedrock: leave them NULL')
  END;
END;

-- A key that belongs to a dead letter, or to a record delivered in the last 24 hours,
-- is refused, but passed over under INSERT OR IGNORE. Which of them it is shows in an
-- insert that conflicts by construction: the outer statement's OR prevails over ours.
CREATE TRIGGER interactions_known_key BEFORE INSERT ON interactions
WHEN EXISTS (SELECT 1 FROM known_keys WHERE key = NEW.key
             AND (delivered_at IS NULL OR delivered_at >
                  CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER) - 86400000))
BEGIN
  INSERT OR REPLACE INTO known_keys SELECT * FROM known_keys WHERE key = NEW.key;
  SELECT CASE changes() WHEN 0 THEN RAISE(IGNORE) ELSE
    RAISE(ABORT, 'key is that of a dead letter, or of a record delivered in the last 24 hours') END;
END;

-- INSERT OR REPLACE takes a waiting row away without a word to any trigger: so it is
-- deleted beforehand, which counts it. Only under OR REPLACE does the insert into the
-- ledger, which conflicts by construction, change a row (to what it was).
CREATE TRIGGER interactions_replace BEFORE INSERT ON interactions
WHEN EXISTS (SELECT 1 FROM interactions WHERE key = NEW.key)
  OR EXISTS (SELECT 1 FROM interactions WHERE id = NEW.id)
BEGIN
  INSERT OR IGNORE INTO ledger SELECT * FROM ledger;
  DELETE FROM interactions WHERE changes() = 1 AND (id = NEW.id OR key = NEW.key);
END;

-- Here it is known that the row went in, and which id it has: before the insert an id
-- that was left out reads as -1, so that only here an id of -1 can be told from none. The
-- other rules for an id stand above, since they are for a producer's own id alone.
CREATE TRIGGER interactions_count AFTER INSERT ON interactions
BEGIN
  UPDATE ledger SET
    accepted = accepted + 1,
    in_bytes_before = in_bytes,
    in_bytes = in_bytes + 128
    + length(CAST(ifnull(NEW.request_body, '') AS BLOB))
    + length(CAST(ifnull(NEW.response_body, '') AS BLOB))
    + length(CAST(ifnull(NEW.model_id, '') || ifnull(NEW.request_id, '') ||
                  ifnull(NEW.session, '') || ifnull(NEW.user_id, '') ||
                  ifnull(NEW.first_name, '') || ifnull(NEW.last_name, '') ||
                  ifnull(NEW.email, '') || ifnull(NEW.phone, '') || ifnull(NEW.gender, '') ||
                  ifnull(NEW.content_type, '') || ifnull(NEW.accept, '') ||
                  ifnull(NEW.request_extra, '') || ifnull(NEW.key, '') ||
                  ifnull(NEW.app, 'default') || ifnull(NEW.format, 'bedrock') ||
                  ifnull(NEW.type, 'chat') AS BLOB));

  SELECT CASE
    WHEN NEW.id < 1 THEN
      RAISE(ABORT, 'id is below 1: leave it out, and one is given')
    WHEN in_bytes - in_bytes_before > max_record THEN
      RAISE(ABORT, 'the record is larger than max_record: reconify-agent status shows the limits')
    WHEN in_bytes - in_bytes_before > max_spool THEN
      RAISE(ABORT, 'the record is larger than max_spool: reconify-agent status shows the limits')
    END
  FROM ledger;

  -- With when_full = drop-oldest the oldest waiting rows make room, as many as needed:
  -- the walk over them ends with the one that frees the last byte in excess.
  DELETE FROM interactions
  WHERE id <> NEW.id AND id <= (
    SELECT CASE WHEN drop_oldest AND in_bytes - out_bytes > max_spool THEN (
      WITH RECURSIVE oldest (id, excess) AS (
        SELECT 0, in_bytes - out_bytes - max_spool
        UNION ALL
        SELECT row.id, excess - (128
          + length(CAST(ifnull(row.request_body, '') AS BLOB))
          + length(CAST(ifnull(row.response_body, '') AS BLOB))
          + length(CAST(ifnull(row.model_id, '') || ifnull(row.request_id, '') ||
                        ifnull(row.session, '') || ifnull(row.user_id, '') ||
                        ifnull(row.first_name, '') || ifnull(row.last_name, '') ||
                        ifnull(row.email, '') || ifnull(row.phone, '') ||
                        ifnull(row.gender, '') || ifnull(row.content_type, '') ||
                        ifnull(row.accept, '') || ifnull(row.request_extra, '') ||
                        ifnull(row.key, '') || ifnull(row.app, '') || ifnull(row.format, '') ||
                        ifnull(row.type, '') AS BLOB)))
        FROM oldest CROSS JOIN interactions AS row
          ON row.id = (SELECT min(id) FROM interactions WHERE id > oldest.id AND id <> NEW.id)
        WHERE excess > 0)
      SELECT max(id) FROM oldest) END
    FROM ledger);
  UPDATE ledger SET removed = removed - changes(), dropped = dropped + changes()
  WHERE changes() > 0;

  SELECT RAISE(ABORT, 'the spool is full (max_spool), and the record was not accepted: see reconify-agent status')
  FROM ledger WHERE in_bytes - out_bytes > max_spool;
END;

-- NULL in an optional column means its default, given or left out.
CREATE TRIGGER interactions_defaults AFTER INSERT ON interactions
WHEN typeof(NEW.uuid) <> 'text' OR NEW.request_at IS NULL OR NEW.spooled_at IS NULL
  OR NEW.app IS NULL OR NEW.format IS NULL OR NEW.type IS NULL
BEGIN
  UPDATE interactions SET
    uuid = CAST(ifnull(uuid, lower(hex(randomblob(16)))) AS TEXT),
    request_at = ifnull(request_at,
      CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
    spooled_at = ifnull(spooled_at,
      CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
    app = ifnull(app, 'default'),
    format = ifnull(format, 'bedrock'),
    type = ifnull(type, 'chat')
  WHERE id = NEW.id;
END;

-- What producers take away themselves is counted too.
CREATE TRIGGER interactions_removed AFTER DELETE ON interactions
BEGIN
  UPDATE ledger SET
    removed = removed + 1,
    out_bytes = out_bytes + 128
    + length(CAST(ifnull(OLD.request_body, '') AS BLOB))
    + length(CAST(ifnull(OLD.response_body, '') AS BLOB))
    + length(CAST(ifnull(OLD.model_id, '') || ifnull(OLD.request_id, '') ||
                  ifnull(OLD.session, '') || ifnull(OLD.user_id, '') ||
                  ifnull(OLD.first_name, '') || ifnull(OLD.last_name, '') ||
                  ifnull(OLD.email, '') || ifnull(OLD.phone, '') || ifnull(OLD.gender, '') ||
                  ifnull(OLD.content_type, '') || ifnull(OLD.accept, '') ||
                  ifnull(OLD.request_extra, '') || ifnull(OLD.key, '') || ifnull(OLD.app, '') ||
                  ifnull(OLD.format, '') || ifnull(OLD.type, '') AS BLOB));
END;

CREATE TRIGGER dead_letters_removed AFTER DELETE ON dead_letters
BEGIN
  UPDATE ledger SET
    dead = dead - 1,
    removed = removed + 1,
    out_bytes = out_bytes + 128
    + length(CAST(ifnull(OLD.request_body, '') AS BLOB))
    + length(CAST(ifnull(OLD.response_body, '') AS BLOB))
    + length(CAST(ifnull(OLD.model_id, '') || ifnull(OLD.request_id, '') ||
                  ifnull(OLD.session, '') || ifnull(OLD.user_id, '') ||
                  ifnull(OLD.first_name, '') || ifnull(OLD.last_name, '') ||
                  ifnull(OLD.email, '') || ifnull(OLD.phone, '') || ifnull(OLD.gender, '') ||
                  ifnull(OLD.content_type, '') || ifnull(OLD.accept, '') ||
                  ifnull(OLD.request_extra, '') || ifnull(OLD.key, '') || ifnull(OLD.app, '') ||
                  ifnull(OLD.format, '') || ifnull(OLD.type, '') AS BLOB));
  DELETE FROM known_keys WHERE key = OLD.key AND delivered_at IS NULL;
END;

-- An accepted record is sent as it was accepted. Only its defaults are filled in.
CREATE TRIGGER interactions_unchangeable BEFORE UPDATE ON interactions
WHEN typeof(OLD.uuid) = 'text' AND OLD.request_at IS NOT NULL AND OLD.spooled_at IS NOT NULL
  AND OLD.app IS NOT NULL AND OLD.format IS NOT NULL AND OLD.type IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'a spooled record cannot be changed: delete it, and insert it anew');
END;

CREATE TRIGGER dead_letters_unchangeable BEFORE UPDATE ON dead_letters
BEGIN
  SELECT RAISE(ABORT, 'a dead letter cannot be changed: see reconify-agent retry and discard');
END;
