#!/bin/sh
# Spools one interaction that stands in shell variables.
set -eu
spool=${RECONIFY_SPOOL:-/var/lib/reconify-agent/spool.db}

model_id=${MODEL_ID:-anthropic.claude-instant-v1}
request_body=${REQUEST_BODY:?}
response_body=${RESPONSE_BODY:?}
session=${SESSION:-}
key=${KEY:?}

# A text as SQL. In hex, nothing in it can be taken for SQL, and nothing is lost.
text() {
	printf "CAST(x'%s' AS TEXT)" "$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n')"
}

sqlite3 -batch -bail "file:$spool?mode=rw" <<SQL
.timeout 5000
INSERT OR IGNORE INTO interactions (model_id, request_body, response_body, session, key)
VALUES ($(text "$model_id"), $(text "$request_body"), $(text "$response_body"),
        nullif($(text "$session"), ''), $(text "$key"));
SQL
