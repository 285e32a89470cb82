-- Findings of verify_collection_assets. $1 is a collection, or NULL for all; $2 the oid of the table of assets. The names
-- in braces are put in qualified and quoted by the function.
WITH RECURSIVE guarded AS (
    -- a table that inherits has rows of the first one, and no triggers but its own
    SELECT $2::pg_catalog.oid AS oid
    UNION
    SELECT h.inhrelid FROM guarded g JOIN pg_catalog.pg_inherits h ON h.inhparent = g.oid
), rows AS (
    SELECT a.*, a.state::pg_catalog.text AS state_name, c.uuid IS NOT NULL AS has_collection, c.source_type, c.case_sensitive,
           {extension}enricher_checksum(c.enrichers) AS wanted_enrichers
    FROM {assets} a LEFT JOIN {collections} c ON c.uuid = a.collection_uuid
    WHERE $1 IS NULL OR a.collection_uuid = $1
)
SELECT 'error', 'lifecycle_not_enforced', NULL::pg_catalog.uuid, NULL::pg_catalog.uuid,
       pg_catalog.format('The triggers of create_ingest_tables() are missing or disabled for %s on %s', w.event, g.oid::pg_catalog.regclass)
FROM guarded g CROSS JOIN (VALUES ('BEFORE INSERT', 4, 2), ('BEFORE UPDATE', 16, 2), ('AFTER INSERT', 4, 0), ('AFTER UPDATE', 16, 0)) w(event, bit, timing)
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = g.oid AND p.proname = 'collection_asset_lifecycle' AND t.tgenabled IN ('O', 'A')
      AND t.tgtype & w.bit > 0 AND t.tgtype & 2 = w.timing)
UNION ALL
SELECT 'error', 'collection_gone', r.collection_uuid, r.uuid, r.canonical_key FROM rows r WHERE NOT r.has_collection
UNION ALL
SELECT 'error', 'approved_without_right', r.collection_uuid, r.uuid, 'state ' || r.state_name || ', deleted ' || r.is_deleted
FROM rows r WHERE r.approved_for_broadcast AND (r.state_name <> 'ready' OR r.is_deleted)
UNION ALL
SELECT 'error', 'deleted_without_time', r.collection_uuid, r.uuid, r.canonical_key FROM rows r WHERE r.is_deleted <> (r.deleted_at IS NOT NULL)
UNION ALL
SELECT 'error', 'key_twice', r.collection_uuid, NULL, r.canonical_key FROM rows r
GROUP BY r.collection_uuid, r.canonical_key HAVING pg_catalog.count(*) > 1
UNION ALL
-- a signature of any of the facets that the row knows; one learned later leaves it
SELECT 'error', 'signature_of_other_content', r.collection_uuid, r.uuid, r.content_signature FROM rows r
WHERE r.content_signature IS NOT NULL
  AND (r.content_hash IS NOT NULL OR r.size IS NOT NULL)
  AND r.content_signature IS DISTINCT FROM {extension}content_signature(r.content_hash::pg_catalog.text, NULL, NULL)
  AND r.content_signature IS DISTINCT FROM {extension}content_signature(NULL, r.size::pg_catalog.int8, r.mtime::pg_catalog.timestamptz)
  AND r.content_signature IS DISTINCT FROM {extension}content_signature(NULL, r.size::pg_catalog.int8, NULL)
UNION ALL
SELECT 'warning', 'key_out_of_date', r.collection_uuid, r.uuid, r.canonical_key FROM rows r
WHERE {extension}collection_asset_rekey(r.source_type, r.canonical_key, r.uri, r.case_sensitive) <> r.canonical_key
UNION ALL
SELECT 'warning', 'enrichers_out_of_date', r.collection_uuid, r.uuid, r.canonical_key FROM rows r
WHERE r.has_collection AND NOT r.is_deleted AND r.state_name <> 'retired' AND r.enricher_checksum IS DISTINCT FROM r.wanted_enrichers
ORDER BY 1, 2, 3, 4
