#!/usr/bin/env python3
"""Spools one interaction: producer.py MODEL_ID KEY < the response body"""
import os
import sqlite3
import sys
from contextlib import closing

SPOOL = os.environ.get("RECONIFY_SPOOL", "/var/lib/reconify-agent/spool.db")


def spool(**columns):
    """Returns once the record is accepted; raises sqlite3.Error when it is not."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    with closing(sqlite3.connect(f"file:{SPOOL}?mode=rw", uri=True, timeout=5)) as database:
        with database:  # commits
            database.execute(f"INSERT OR IGNORE INTO interactions ({names}) VALUES ({marks})",
                             list(columns.values()))


spool(model_id=sys.argv[1], key=sys.argv[2], request_body='{"prompt":"Hello"}',
      response_body=sys.stdin.read(), session="000123", user_id="ABC123", is_authenticated=1)
