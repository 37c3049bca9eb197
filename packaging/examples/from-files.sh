#!/bin/sh
# Spools one interaction whose bodies are files: from-files.sh MODEL_ID REQUEST RESPONSE
set -eu
spool=${RECONIFY_SPOOL:-/var/lib/reconify-agent/spool.db}

text() {
	printf "CAST(x'%s' AS TEXT)" "$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n')"
}

sqlite3 -batch -bail "file:$spool?mode=rw" <<SQL
.timeout 5000
INSERT INTO interactions (model_id, request_body, response_body)
VALUES ($(text "$1"), readfile($(text "$2")), readfile($(text "$3")));
SQL
