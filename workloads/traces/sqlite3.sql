-- The work behind sqlite3.parquet: documents in memory under skewed point reads, updates, range queries, a scan and a hot set
-- that moves. Deterministic: a linear congruential generator in SQL draws every key. record-sqlite3.sh records it.
PRAGMA temp_store = memory;
PRAGMA journal_mode = off;
PRAGMA secure_delete = off;

CREATE TABLE document (id INTEGER PRIMARY KEY, author INTEGER, year INTEGER, reads INTEGER, body TEXT);
CREATE TABLE visit (id INTEGER PRIMARY KEY, document INTEGER, day INTEGER, note TEXT);
CREATE TABLE draw (n INTEGER PRIMARY KEY, u REAL);
CREATE TABLE template (body TEXT, note TEXT);

-- 1. Build: 2,500 random numbers u in [0, 1), 4,000 documents of 3.8 kB, an index over them.
INSERT INTO draw
WITH RECURSIVE seq(n, r) AS (SELECT 0, 20250910 UNION ALL SELECT n + 1, (r * 1103515245 + 12345) & 2147483647 FROM seq WHERE n < 2499)
SELECT n, ((r >> 4) & 16777215) / 16777216.0 FROM seq;
INSERT INTO template VALUES (hex(zeroblob(1900)), hex(zeroblob(250)));
INSERT INTO document
WITH RECURSIVE seq(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM seq WHERE n < 3999)
SELECT n, n * 7919 % 300, 1970 + n * 10473 % 56, 0, body FROM seq CROSS JOIN template;
CREATE INDEX document_author ON document (author, year);

-- 2. Skewed reads of whole documents: rank 4000 u^4, so that the density falls as the rank to the power 3/4; ranks lie scattered
--    over the table, and each number serves twice (u and the fraction of 997 u). Then some of the popular ones are updated.
CREATE VIEW twice AS SELECT 2 * n + column1 AS n, u * column2 - CAST(u * column2 AS INTEGER) AS u
  FROM draw CROSS JOIN (VALUES (0, 1), (1, 997));
CREATE VIEW first_hot AS SELECT n, CAST(4000 * u * u * u * u AS INTEGER) * 3119 % 4000 AS id FROM twice;
CREATE VIEW second_hot AS SELECT n, (CAST(4000 * u * u * u * u AS INTEGER) * 1627 + 2311) % 4000 AS id FROM twice;
SELECT count(*), length(max(body)) FROM first_hot AS hot CROSS JOIN document ON document.id = hot.id;
UPDATE document SET reads = reads + 1 WHERE id IN (SELECT id FROM first_hot WHERE n < 1500);

-- 3. Visits to popular documents are appended while the documents are looked up, and indexed.
INSERT INTO visit
SELECT n, document.id, n / 20, note FROM first_hot AS hot CROSS JOIN template CROSS JOIN document ON document.id = hot.id WHERE n < 2500;
CREATE INDEX visit_document ON visit (document);

-- 4. Range queries: windows of 30 neighbouring documents, the lower half of the table four times as often as the upper.
SELECT count(*), length(max(body)) FROM draw CROSS JOIN document
  ON document.id BETWEEN CAST(2000 * u AS INTEGER) + 1970 * (n % 5 = 0) AND CAST(2000 * u AS INTEGER) + 1970 * (n % 5 = 0) + 29
  WHERE n < 120;

-- 5. The hot set moves: the same skew over other documents, with their visits by index; then updates there.
SELECT count(*), count(visit.id), length(max(body)) FROM second_hot AS hot CROSS JOIN document ON document.id = hot.id
  LEFT JOIN visit ON visit.document = document.id;
UPDATE document SET reads = reads + 1 WHERE id IN (SELECT id FROM second_hot WHERE n >= 3500);

-- 6. A report: scan with a sort. Then the second hot set again, and authors by index.
SELECT author, sum(reads), max(reads) FROM document GROUP BY author ORDER BY 2 DESC LIMIT 3;
SELECT count(*), length(max(body)) FROM second_hot AS hot CROSS JOIN document ON document.id = hot.id;
SELECT count(*), sum(document.reads) FROM draw CROSS JOIN document ON document.author = CAST(300 * u * u AS INTEGER) WHERE n < 150;
