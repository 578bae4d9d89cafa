#!/bin/sh
# Makes sqlite3.parquet anew: sqlite3.sql in the sqlite3 shell, under valgrind (about ten minutes).
set -e
cd "$(dirname "$0")"
exec klrubench trace record --force --llc 2MiB --epoch 50000 --output sqlite3.parquet \
    --note "sqlite3.sql: 4,000 documents of 3.8 kB in memory; skewed reads, updates, ranges, a hot set that moves" \
    -- sqlite3 :memory: <sqlite3.sql
