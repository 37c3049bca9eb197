#!/bin/sh
# Spools every row of a CSV file, or none: from-csv.sh FILE
# Its columns: model_id,request_body,response_body,request_at,session,key (and a header).
set -eu
spool=${RECONIFY_SPOOL:-/var/lib/reconify-agent/spool.db}

# The rows go through a table of their own, because .import exits 0 although rows were
# refused, and makes '' of an empty field.
sqlite3 -batch "file:$spool?mode=rw" 3< "$1" <<'SQL'
.bail on
.timeout 5000
CREATE TEMP TABLE incoming (model_id TEXT, request_body TEXT, response_body TEXT,
                            request_at TEXT, session TEXT, key TEXT);
.import --csv --skip 1 /dev/fd/3 incoming
INSERT OR IGNORE INTO interactions
  (model_id, request_body, response_body, request_at, session, key)
SELECT model_id, request_body, response_body, nullif(request_at, ''),
       nullif(session, ''), nullif(key, '')
FROM incoming ORDER BY rowid;
SQL
