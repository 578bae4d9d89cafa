#!/bin/sh
# Makes sqlite3.parquet anew: sqlite3.sql in the sqlite3 shell, under valgrind (five to ten minutes).
# The cache is small because the program is: 256 KiB are to its 20 MiB rather more than a real cache is to tens of GiB.
set -e
cd "$(dirname "$0")"
exec klrubench trace record --force --llc 256KiB --epoch 20000 --output sqlite3.parquet \
    --note "sqlite3.sql: 4,000 documents of 3.8 kB in memory; skewed reads, updates, ranges, a hot set that moves" \
    -- sqlite3 :memory: <sqlite3.sql
