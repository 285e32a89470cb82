-- Start of the measurement of the collection ingest: a database with the extension, a collection, and :items items of it.

SELECT count(*) FROM create_ingest_tables() \g /dev/null
INSERT INTO collections (source_type, name, sync_enabled, ingestible, enrichers)
SELECT 'filesystem', name, true, true, '[{"enricher_id": "ffprobe", "priority": 1}]' FROM unnest('{TV,One}'::text[]) name;
CREATE TABLE items AS
SELECT format('/srv/media/Show %s/Season %s/Show %s - S%sE%s.mkv', n % 900, n % 7, n % 900, n % 7, n) AS locator, 1000000 + n::bigint AS size,
       timestamptz '2025-01-01' + n * interval '1 second' AS mtime, 'Show ' || n % 900 AS title, n % 7 AS season, n AS episode
FROM generate_series(1, :items) n;
-- What every run costs, whatever its items: its rows in the ledger and the time of its collection.
CREATE VIEW one_item AS SELECT * FROM items LIMIT 1;
SELECT * FROM ingest_collection('One', 'one_item', execute => true) \g /dev/null
VACUUM ANALYZE;
