#!/bin/sh
# Spools every line of a JSON Lines file, or none: from-jsonl.sh FILE
# A line: {"model_id":"...","request_body":"...","response_body":"...","session":"...",
# "key":"..."}. The bodies are strings that hold the texts as they were.
set -eu
spool=${RECONIFY_SPOOL:-/var/lib/reconify-agent/spool.db}

# A raw line break stands only between lines: within a JSON text it is \n.
sqlite3 -batch -bail "file:$spool?mode=rw" 3< "$1" <<'SQL'
.timeout 5000
INSERT OR IGNORE INTO interactions (model_id, request_body, response_body, session, key)
SELECT json_extract(value, '$.model_id'), json_extract(value, '$.request_body'),
       json_extract(value, '$.response_body'), json_extract(value, '$.session'),
       json_extract(value, '$.key')
FROM json_each('[' || replace(rtrim(CAST(readfile('/dev/fd/3') AS TEXT), char(10)),
                              char(10), ',') || ']');
SQL
