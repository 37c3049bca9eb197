-- The spool of reconify-agent: what a producer sees, and the little that the agent
-- keeps beside it. schema/README.md is the producer's manual.
--
-- Works with every sqlite3 from 3.34 on. The agent's own connection runs no
-- triggers: they speak to producers alone, so that a row which cannot be sent is
-- refused at once, with a sentence, to the one who can mend it.

-- What waits to be sent, and only that. Insert here.
CREATE TABLE interactions (
  model_id         TEXT,
  request_body     TEXT,
  response_body    TEXT,
  request_id       TEXT,
  request_at       INTEGER DEFAULT (CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
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
  spooled_at       INTEGER DEFAULT (CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
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
-- in_bytes - out_bytes is what waiting and dead rows count for against max_spool.
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
  replacing       INTEGER NOT NULL DEFAULT 0, -- rows that the insert under way replaces
  replacing_bytes INTEGER NOT NULL DEFAULT 0,
  dropping        INTEGER NOT NULL DEFAULT 0, -- 1 while the oldest rows make room
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

-- The agent's notes to itself.
CREATE TABLE agent_state (
  name  TEXT PRIMARY KEY,
  value TEXT
) WITHOUT ROWID;

-- A row that can never be sent is refused, also under INSERT OR IGNORE.
CREATE TRIGGER interactions_check BEFORE INSERT ON interactions
BEGIN
  SELECT CASE
    WHEN NEW.model_id IS NULL AND coalesce(NEW.format, 'bedrock') = 'bedrock' THEN
      RAISE(ABORT, 'model_id is missing: give the Bedrock modelId')
    WHEN NEW.request_body IS NULL THEN
      RAISE(ABORT, 'request_body is missing: give the body as it was sent to the model (it may be empty)')
    WHEN NEW.response_body IS NULL THEN
      RAISE(ABORT, 'response_body is missing: give the JSON text of the response body')
    WHEN NOT json_valid(CAST(NEW.response_body AS TEXT)) THEN
      RAISE(ABORT, 'response_body is not valid JSON')
    WHEN coalesce(NEW.format, 'bedrock') <> 'bedrock'
         AND NOT json_valid(CAST(NEW.request_body AS TEXT)) THEN
      RAISE(ABORT, 'request_body is not valid JSON, which it must be for a format other than bedrock')
    WHEN coalesce(NEW.format, 'bedrock') <> 'bedrock'
         AND (NEW.model_id IS NOT NULL OR NEW.request_id IS NOT NULL OR NEW.content_type IS NOT NULL
              OR NEW.accept IS NOT NULL OR NEW.request_extra IS NOT NULL) THEN
      RAISE(ABORT, 'model_id, request_id, content_type, accept and request_extra belong to format bedrock alone: leave them NULL')
    WHEN NEW.request_extra IS NOT NULL AND NOT json_valid(CAST(NEW.request_extra AS TEXT)) THEN
      RAISE(ABORT, 'request_extra is not valid JSON')
    WHEN NEW.request_extra IS NOT NULL AND json_type(CAST(NEW.request_extra AS TEXT)) <> 'object' THEN
      RAISE(ABORT, 'request_extra is not a JSON object')
    WHEN NEW.request_extra IS NOT NULL AND EXISTS (
           SELECT 1 FROM json_each(CAST(NEW.request_extra AS TEXT))
           WHERE key IN ('modelId', 'contentType', 'accept', 'body')) THEN
      RAISE(ABORT, 'request_extra has a member modelId, contentType, accept or body: these have columns of their own')
    WHEN NEW.request_at IS NOT NULL AND typeof(NEW.request_at) <> 'integer' THEN
      RAISE(ABORT, 'request_at is not a whole number: give milliseconds since 1970')
    WHEN NEW.request_at < 0 THEN
      RAISE(ABORT, 'request_at is negative: give milliseconds since 1970')
    WHEN NEW.request_at BETWEEN 1000000000 AND 9999999999
         AND CAST(strftime('%s', 'now') AS INTEGER) > 978307200 THEN
      RAISE(ABORT, 'request_at is in seconds: give milliseconds since 1970')
    WHEN NEW.response_at IS NOT NULL AND typeof(NEW.response_at) <> 'integer' THEN
      RAISE(ABORT, 'response_at is not a whole number: give milliseconds since 1970')
    WHEN NEW.response_at < 0 THEN
      RAISE(ABORT, 'response_at is negative: give milliseconds since 1970')
    WHEN NEW.response_at BETWEEN 1000000000 AND 9999999999
         AND CAST(strftime('%s', 'now') AS INTEGER) > 978307200 THEN
      RAISE(ABORT, 'response_at is in seconds: give milliseconds since 1970')
    WHEN NEW.spooled_at IS NOT NULL AND typeof(NEW.spooled_at) <> 'integer' THEN
      RAISE(ABORT, 'spooled_at is not a whole number: give milliseconds since 1970')
    WHEN NEW.spooled_at < 0 THEN
      RAISE(ABORT, 'spooled_at is negative: give milliseconds since 1970')
    WHEN NEW.spooled_at BETWEEN 1000000000 AND 9999999999
         AND CAST(strftime('%s', 'now') AS INTEGER) > 978307200 THEN
      RAISE(ABORT, 'spooled_at is in seconds: give milliseconds since 1970')
    WHEN NEW.session_timeout IS NOT NULL AND typeof(NEW.session_timeout) <> 'integer' THEN
      RAISE(ABORT, 'session_timeout is not a whole number: give minutes')
    WHEN NEW.session_timeout < 0 THEN
      RAISE(ABORT, 'session_timeout is negative: give minutes, 0 or more')
    WHEN NEW.is_authenticated IS NOT NULL AND (typeof(NEW.is_authenticated) <> 'integer'
         OR NEW.is_authenticated NOT IN (0, 1)) THEN
      RAISE(ABORT, 'is_authenticated is neither 0 nor 1')
    WHEN NEW.user_id IS NULL AND NEW.email IS NULL
         AND (NEW.is_authenticated IS NOT NULL OR NEW.first_name IS NOT NULL OR NEW.last_name IS NOT NULL
              OR NEW.phone IS NOT NULL OR NEW.gender IS NOT NULL) THEN
      RAISE(ABORT, 'user_id or email is needed as soon as any other column about the user is set')
    WHEN NEW.uuid IS NOT NULL AND (typeof(NEW.uuid) <> 'text' OR length(NEW.uuid) <> 32
         OR NEW.uuid GLOB '*[^0-9a-f]*') THEN
      RAISE(ABORT, 'uuid is not 32 lower-case hex digits: leave it out, and one is made')
    WHEN NEW.id > 1000000000000000 THEN
      RAISE(ABORT, 'id is above 1000000000000000: leave it out, and one is given')
    WHEN NEW.id < 1 AND NEW.id <> -1 THEN
      RAISE(ABORT, 'id is below 1: leave it out, and one is given')
    WHEN EXISTS (SELECT 1 FROM dead_letters WHERE id = NEW.id) THEN
      RAISE(ABORT, 'id is that of a dead letter: leave it out, and one is given')
  END;
  SELECT CASE
    WHEN bytes > max_record THEN
      RAISE(ABORT, 'the record is larger than max_record')
    WHEN bytes > max_spool THEN
      RAISE(ABORT, 'the record is larger than max_spool')
    WHEN NOT drop_oldest AND in_bytes - out_bytes + bytes > max_spool THEN
      RAISE(ABORT, 'the spool is full (max_spool): see reconify-agent status')
    END
  FROM ledger, (SELECT
         128
         + coalesce(length(CAST(NEW.model_id AS BLOB)), 0) + coalesce(length(CAST(NEW.request_body AS BLOB)), 0)
         + coalesce(length(CAST(NEW.response_body AS BLOB)), 0) + coalesce(length(CAST(NEW.request_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.session AS BLOB)), 0) + coalesce(length(CAST(NEW.user_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.first_name AS BLOB)), 0) + coalesce(length(CAST(NEW.last_name AS BLOB)), 0)
         + coalesce(length(CAST(NEW.email AS BLOB)), 0) + coalesce(length(CAST(NEW.phone AS BLOB)), 0)
         + coalesce(length(CAST(NEW.gender AS BLOB)), 0) + coalesce(length(CAST(NEW.content_type AS BLOB)), 0)
         + coalesce(length(CAST(NEW.accept AS BLOB)), 0) + coalesce(length(CAST(NEW.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(NEW.app AS BLOB)), 0) + coalesce(length(CAST(NEW.format AS BLOB)), 0)
         + coalesce(length(CAST(NEW.type AS BLOB)), 0) + coalesce(length(CAST(NEW.key AS BLOB)), 0) AS bytes);
END;

-- A key that belongs to a dead letter, or to a record delivered in the last 24
-- hours, is refused: a plain INSERT fails, INSERT OR IGNORE passes over the row.
-- (In a trigger the outer statement's conflict rule holds, so that this insert,
-- which conflicts by construction, fails, is ignored or replaces accordingly.)
CREATE TRIGGER interactions_known_key BEFORE INSERT ON interactions
WHEN NEW.key IS NOT NULL AND EXISTS (
  SELECT 1 FROM known_keys WHERE key = NEW.key AND (delivered_at IS NULL
    OR delivered_at > (CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)) - 86400000))
BEGIN
  INSERT INTO known_keys (key, delivered_at)
    SELECT key, delivered_at FROM known_keys WHERE key = NEW.key;
  SELECT CASE changes() WHEN 0 THEN RAISE(IGNORE) ELSE
    RAISE(ABORT, 'key is that of a dead letter, or was delivered in the last 24 hours') END;
END;

-- INSERT OR REPLACE takes a waiting row away without a word: it is noted here and
-- counted below, where the new row is known to have gone in.
CREATE TRIGGER interactions_note_replaced BEFORE INSERT ON interactions
WHEN (NEW.key IS NOT NULL AND EXISTS (SELECT 1 FROM interactions WHERE key = NEW.key))
  OR EXISTS (SELECT 1 FROM interactions WHERE id = NEW.id)
  OR (SELECT replacing FROM ledger)
BEGIN
  UPDATE ledger SET (replacing, replacing_bytes) = (SELECT count(*), coalesce(sum(
         128
         + coalesce(length(CAST(model_id AS BLOB)), 0) + coalesce(length(CAST(request_body AS BLOB)), 0)
         + coalesce(length(CAST(response_body AS BLOB)), 0) + coalesce(length(CAST(request_id AS BLOB)), 0)
         + coalesce(length(CAST(session AS BLOB)), 0) + coalesce(length(CAST(user_id AS BLOB)), 0)
         + coalesce(length(CAST(first_name AS BLOB)), 0) + coalesce(length(CAST(last_name AS BLOB)), 0)
         + coalesce(length(CAST(email AS BLOB)), 0) + coalesce(length(CAST(phone AS BLOB)), 0)
         + coalesce(length(CAST(gender AS BLOB)), 0) + coalesce(length(CAST(content_type AS BLOB)), 0)
         + coalesce(length(CAST(accept AS BLOB)), 0) + coalesce(length(CAST(request_extra AS BLOB)), 0)
         + coalesce(length(CAST(app AS BLOB)), 0) + coalesce(length(CAST(format AS BLOB)), 0)
         + coalesce(length(CAST(type AS BLOB)), 0) + coalesce(length(CAST(key AS BLOB)), 0)), 0)
    FROM interactions WHERE id = NEW.id OR key = NEW.key);
END;

-- With when_full = drop-oldest the oldest waiting rows make room.
CREATE TRIGGER interactions_drop_oldest BEFORE INSERT ON interactions
WHEN (SELECT drop_oldest AND in_bytes - out_bytes
         + 128
         + coalesce(length(CAST(NEW.model_id AS BLOB)), 0) + coalesce(length(CAST(NEW.request_body AS BLOB)), 0)
         + coalesce(length(CAST(NEW.response_body AS BLOB)), 0) + coalesce(length(CAST(NEW.request_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.session AS BLOB)), 0) + coalesce(length(CAST(NEW.user_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.first_name AS BLOB)), 0) + coalesce(length(CAST(NEW.last_name AS BLOB)), 0)
         + coalesce(length(CAST(NEW.email AS BLOB)), 0) + coalesce(length(CAST(NEW.phone AS BLOB)), 0)
         + coalesce(length(CAST(NEW.gender AS BLOB)), 0) + coalesce(length(CAST(NEW.content_type AS BLOB)), 0)
         + coalesce(length(CAST(NEW.accept AS BLOB)), 0) + coalesce(length(CAST(NEW.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(NEW.app AS BLOB)), 0) + coalesce(length(CAST(NEW.format AS BLOB)), 0)
         + coalesce(length(CAST(NEW.type AS BLOB)), 0) + coalesce(length(CAST(NEW.key AS BLOB)), 0)
         > max_spool FROM ledger)
BEGIN
  UPDATE ledger SET dropping = 1;
  DELETE FROM interactions WHERE id <= (
    SELECT coalesce(min(CASE WHEN freed >= needed THEN id END), max(id)) FROM (
      SELECT id, sum(
         128
         + coalesce(length(CAST(model_id AS BLOB)), 0) + coalesce(length(CAST(request_body AS BLOB)), 0)
         + coalesce(length(CAST(response_body AS BLOB)), 0) + coalesce(length(CAST(request_id AS BLOB)), 0)
         + coalesce(length(CAST(session AS BLOB)), 0) + coalesce(length(CAST(user_id AS BLOB)), 0)
         + coalesce(length(CAST(first_name AS BLOB)), 0) + coalesce(length(CAST(last_name AS BLOB)), 0)
         + coalesce(length(CAST(email AS BLOB)), 0) + coalesce(length(CAST(phone AS BLOB)), 0)
         + coalesce(length(CAST(gender AS BLOB)), 0) + coalesce(length(CAST(content_type AS BLOB)), 0)
         + coalesce(length(CAST(accept AS BLOB)), 0) + coalesce(length(CAST(request_extra AS BLOB)), 0)
         + coalesce(length(CAST(app AS BLOB)), 0) + coalesce(length(CAST(format AS BLOB)), 0)
         + coalesce(length(CAST(type AS BLOB)), 0) + coalesce(length(CAST(key AS BLOB)), 0)) OVER (ORDER BY id) AS freed
      FROM interactions),
      (SELECT in_bytes - out_bytes - max_spool
         + 128
         + coalesce(length(CAST(NEW.model_id AS BLOB)), 0) + coalesce(length(CAST(NEW.request_body AS BLOB)), 0)
         + coalesce(length(CAST(NEW.response_body AS BLOB)), 0) + coalesce(length(CAST(NEW.request_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.session AS BLOB)), 0) + coalesce(length(CAST(NEW.user_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.first_name AS BLOB)), 0) + coalesce(length(CAST(NEW.last_name AS BLOB)), 0)
         + coalesce(length(CAST(NEW.email AS BLOB)), 0) + coalesce(length(CAST(NEW.phone AS BLOB)), 0)
         + coalesce(length(CAST(NEW.gender AS BLOB)), 0) + coalesce(length(CAST(NEW.content_type AS BLOB)), 0)
         + coalesce(length(CAST(NEW.accept AS BLOB)), 0) + coalesce(length(CAST(NEW.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(NEW.app AS BLOB)), 0) + coalesce(length(CAST(NEW.format AS BLOB)), 0)
         + coalesce(length(CAST(NEW.type AS BLOB)), 0) + coalesce(length(CAST(NEW.key AS BLOB)), 0) AS needed
       FROM ledger));
  UPDATE ledger SET dropping = 0;
END;

CREATE TRIGGER interactions_count AFTER INSERT ON interactions
BEGIN
  UPDATE ledger SET
    accepted = accepted + 1,
    in_bytes = in_bytes
         + 128
         + coalesce(length(CAST(NEW.model_id AS BLOB)), 0) + coalesce(length(CAST(NEW.request_body AS BLOB)), 0)
         + coalesce(length(CAST(NEW.response_body AS BLOB)), 0) + coalesce(length(CAST(NEW.request_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.session AS BLOB)), 0) + coalesce(length(CAST(NEW.user_id AS BLOB)), 0)
         + coalesce(length(CAST(NEW.first_name AS BLOB)), 0) + coalesce(length(CAST(NEW.last_name AS BLOB)), 0)
         + coalesce(length(CAST(NEW.email AS BLOB)), 0) + coalesce(length(CAST(NEW.phone AS BLOB)), 0)
         + coalesce(length(CAST(NEW.gender AS BLOB)), 0) + coalesce(length(CAST(NEW.content_type AS BLOB)), 0)
         + coalesce(length(CAST(NEW.accept AS BLOB)), 0) + coalesce(length(CAST(NEW.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(NEW.app AS BLOB)), 0) + coalesce(length(CAST(NEW.format AS BLOB)), 0)
         + coalesce(length(CAST(NEW.type AS BLOB)), 0) + coalesce(length(CAST(NEW.key AS BLOB)), 0),
    removed = removed + replacing,
    out_bytes = out_bytes + replacing_bytes,
    replacing = 0,
    replacing_bytes = 0;
END;

-- NULL in an optional column means its default, given or left out.
CREATE TRIGGER interactions_defaults AFTER INSERT ON interactions
WHEN NEW.uuid IS NULL OR NEW.request_at IS NULL OR NEW.spooled_at IS NULL
  OR NEW.app IS NULL OR NEW.format IS NULL OR NEW.type IS NULL
BEGIN
  UPDATE ledger SET in_bytes = in_bytes
    + CASE WHEN NEW.app IS NULL THEN 7 ELSE 0 END
    + CASE WHEN NEW.format IS NULL THEN 7 ELSE 0 END
    + CASE WHEN NEW.type IS NULL THEN 4 ELSE 0 END;
  UPDATE interactions SET
    uuid = coalesce(uuid, lower(hex(randomblob(16)))),
    request_at = coalesce(request_at, CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
    spooled_at = coalesce(spooled_at, CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INTEGER)),
    app = coalesce(app, 'default'),
    format = coalesce(format, 'bedrock'),
    type = coalesce(type, 'chat')
  WHERE id = NEW.id;
END;

-- What producers take away themselves is counted too.
CREATE TRIGGER interactions_removed AFTER DELETE ON interactions
BEGIN
  UPDATE ledger SET
    removed = removed + (dropping = 0),
    dropped = dropped + (dropping = 1),
    out_bytes = out_bytes
         + 128
         + coalesce(length(CAST(OLD.model_id AS BLOB)), 0) + coalesce(length(CAST(OLD.request_body AS BLOB)), 0)
         + coalesce(length(CAST(OLD.response_body AS BLOB)), 0) + coalesce(length(CAST(OLD.request_id AS BLOB)), 0)
         + coalesce(length(CAST(OLD.session AS BLOB)), 0) + coalesce(length(CAST(OLD.user_id AS BLOB)), 0)
         + coalesce(length(CAST(OLD.first_name AS BLOB)), 0) + coalesce(length(CAST(OLD.last_name AS BLOB)), 0)
         + coalesce(length(CAST(OLD.email AS BLOB)), 0) + coalesce(length(CAST(OLD.phone AS BLOB)), 0)
         + coalesce(length(CAST(OLD.gender AS BLOB)), 0) + coalesce(length(CAST(OLD.content_type AS BLOB)), 0)
         + coalesce(length(CAST(OLD.accept AS BLOB)), 0) + coalesce(length(CAST(OLD.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(OLD.app AS BLOB)), 0) + coalesce(length(CAST(OLD.format AS BLOB)), 0)
         + coalesce(length(CAST(OLD.type AS BLOB)), 0) + coalesce(length(CAST(OLD.key AS BLOB)), 0);
END;

CREATE TRIGGER dead_letters_removed AFTER DELETE ON dead_letters
BEGIN
  UPDATE ledger SET
    dead = dead - 1,
    removed = removed + 1,
    out_bytes = out_bytes
         + 128
         + coalesce(length(CAST(OLD.model_id AS BLOB)), 0) + coalesce(length(CAST(OLD.request_body AS BLOB)), 0)
         + coalesce(length(CAST(OLD.response_body AS BLOB)), 0) + coalesce(length(CAST(OLD.request_id AS BLOB)), 0)
         + coalesce(length(CAST(OLD.session AS BLOB)), 0) + coalesce(length(CAST(OLD.user_id AS BLOB)), 0)
         + coalesce(length(CAST(OLD.first_name AS BLOB)), 0) + coalesce(length(CAST(OLD.last_name AS BLOB)), 0)
         + coalesce(length(CAST(OLD.email AS BLOB)), 0) + coalesce(length(CAST(OLD.phone AS BLOB)), 0)
         + coalesce(length(CAST(OLD.gender AS BLOB)), 0) + coalesce(length(CAST(OLD.content_type AS BLOB)), 0)
         + coalesce(length(CAST(OLD.accept AS BLOB)), 0) + coalesce(length(CAST(OLD.request_extra AS BLOB)), 0)
         + coalesce(length(CAST(OLD.app AS BLOB)), 0) + coalesce(length(CAST(OLD.format AS BLOB)), 0)
         + coalesce(length(CAST(OLD.type AS BLOB)), 0) + coalesce(length(CAST(OLD.key AS BLOB)), 0);
  DELETE FROM known_keys WHERE key = OLD.key AND delivered_at IS NULL;
END;

-- Nothing is sent altered: an accepted record is never changed.
CREATE TRIGGER interactions_unchangeable BEFORE UPDATE ON interactions
WHEN OLD.uuid IS NOT NULL AND OLD.request_at IS NOT NULL AND OLD.spooled_at IS NOT NULL
  AND OLD.app IS NOT NULL AND OLD.format IS NOT NULL AND OLD.type IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'an accepted record cannot be changed: delete it, then insert it anew');
END;

CREATE TRIGGER dead_letters_unchangeable BEFORE UPDATE ON dead_letters
BEGIN
  SELECT RAISE(ABORT, 'a dead letter cannot be changed: delete it, or retry it');
END;
