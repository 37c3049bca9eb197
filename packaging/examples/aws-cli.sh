#!/bin/sh
# Calls a model through the AWS CLI and spools the interaction:
#   aws-cli.sh MODEL_ID REQUEST RESPONSE   (RESPONSE is written)
set -eu
spool=${RECONIFY_SPOOL:-/var/lib/reconify-agent/spool.db}

text() {
	printf "CAST(x'%s' AS TEXT)" "$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n')"
}

request_at=$(date +%s%3N)
aws bedrock-runtime invoke-model --model-id "$1" --body "fileb://$2" \
	--content-type application/json --accept application/json "$3" > /dev/null
response_at=$(date +%s%3N)

sqlite3 -batch -bail "file:$spool?mode=rw" <<SQL
.timeout 5000
INSERT INTO interactions (model_id, request_body, response_body, request_at, response_at,
                          content_type, accept)
VALUES ($(text "$1"), readfile($(text "$2")), readfile($(text "$3")), $request_at,
        $response_at, 'application/json', 'application/json');
SQL
