#!/usr/bin/env node
// Spools one interaction: producer.mjs MODEL_ID KEY < the response body
import { readFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'

const file = process.env.RECONIFY_SPOOL ?? '/var/lib/reconify-agent/spool.db'

// A value as SQL. In hex, nothing in a text can be taken for SQL, and nothing is lost.
function sql(value) {
  if (value == null) return 'NULL'
  if (typeof value === 'number' || typeof value === 'boolean') return String(Number(value))
  return `CAST(x'${Buffer.from(value).toString('hex')}' AS TEXT)`
}

// Returns once the record is accepted, throws when it is not.
function spool(columns) {
  const names = Object.keys(columns).join(', ')
  const values = Object.values(columns).map(sql).join(', ')
  const { status, stderr, error } = spawnSync('sqlite3', ['-batch', '-bail', `file:${file}?mode=rw`],
    { input: `.timeout 5000\nINSERT OR IGNORE INTO interactions (${names}) VALUES (${values});\n` })
  if (status !== 0) throw error ?? new Error(stderr.toString())
}

spool({ model_id: process.argv[2], key: process.argv[3], request_body: '{"prompt":"Hello"}',
  response_body: readFileSync(0), session: '000123', user_id: 'ABC123', is_authenticated: true })
