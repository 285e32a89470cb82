-- Findings of verify_jellyfin_metadata. The names in braces are put in qualified and quoted by the function.
WITH board AS MATERIALIZED (
    SELECT b.id::pg_catalog.int8 AS row_id, b.status::pg_catalog.text AS status, b.meta ->> 'jellyfin_public_url' AS link, {board_row} AS board_row
    FROM {board} b
), candidates AS MATERIALIZED (
    SELECT b.row_id, b.board_row, k.item_id, k.search_name, k.search_date, k.search_key
    FROM board b CROSS JOIN LATERAL {extension}jellyfin_lookup(b.board_row) k
    -- Blank is what the rules take for it: no search is made for such a name.
    WHERE b.status = 'published' AND {extension}jellyfin_search_key(b.link, '2000-01-01') IS NULL
), items AS MATERIALIZED (
    SELECT i.item_id, i.doc, {extension}jellyfin_search_key(i.doc ->> 'Name', i.doc ->> 'PremiereDate') AS search_key
    FROM {items} i WHERE pg_catalog.jsonb_typeof(i.doc) = 'object' AND COALESCE(i.http_status, 200) BETWEEN 200 AND 299
), named AS MATERIALIZED (
    SELECT i.search_key, pg_catalog.jsonb_agg(i.doc) AS docs FROM items i WHERE i.search_key IS NOT NULL GROUP BY i.search_key
), resolved AS MATERIALIZED (
    SELECT c.row_id, COALESCE(i.doc, f.doc) AS doc,
           {extension}content_published_payload(c.board_row, COALESCE(i.doc, f.doc), NULL) IS NOT NULL AS has_payload
    FROM candidates c
    LEFT JOIN items i ON i.item_id = c.item_id
    LEFT JOIN {items} gone ON gone.item_id = c.item_id AND gone.http_status IN (404, 410)
    LEFT JOIN named n ON n.search_key = c.search_key AND (c.item_id IS NULL OR gone.item_id IS NOT NULL)
    LEFT JOIN LATERAL (
        SELECT e.doc FROM {extension}resolve_jellyfin_item(c.search_name, c.search_date, n.docs) r
        JOIN LATERAL pg_catalog.jsonb_array_elements(n.docs) e(doc) ON e.doc ->> 'Id' = r.item_id LIMIT 1
    ) f ON true
), events AS MATERIALIZED (
    SELECT o.event_id, o.payload, o.state, o.attempts, o.last_error, o.subject_id,
           CASE WHEN o.subject_id ~ '^-?[0-9]{1,19}$'
                THEN CASE WHEN o.subject_id::pg_catalog.numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN o.subject_id::pg_catalog.int8 END
           END AS row_id,
           o.payload #>> '{meta,backfill_version}' AS backfill_version
    FROM {outbox} o WHERE o.topic = 'content.published.v1'
), findings AS (
    SELECT 'error'::pg_catalog.text AS severity, 'not_enriched'::pg_catalog.text AS finding, r.row_id, NULL::pg_catalog.uuid AS event_id,
           'its item is known: ' || COALESCE(r.doc ->> 'Id', 'without Id') AS detail
    FROM resolved r
    WHERE r.doc IS NOT NULL AND r.has_payload
    UNION ALL
    SELECT 'warning', 'not_resolved', r.row_id, NULL,
           COALESCE('skipped: ' || s.reason || COALESCE(', next attempt ' || s.next_attempt_at::pg_catalog.text, ''), 'not looked at yet')
    FROM resolved r LEFT JOIN {skips} s ON s.row_id = r.row_id
    WHERE r.doc IS NULL OR NOT r.has_payload
    UNION ALL
    SELECT 'error', 'event_not_valid', e.row_id, e.event_id, 'the payload is not a content.published.v1'
    FROM events e
    WHERE (pg_catalog.jsonb_typeof(e.payload -> 'artifact_uri') = 'string' AND e.payload ->> 'artifact_uri' ~ '^s3://'
           AND pg_catalog.jsonb_typeof(e.payload -> 'published_path') = 'string'
           AND COALESCE(pg_catalog.jsonb_typeof(e.payload -> 'tags'), 'array') = 'array'
           AND COALESCE(pg_catalog.jsonb_typeof(e.payload -> 'meta'), 'object') = 'object'
           AND NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_each(e.payload) m(name, value)
               WHERE pg_catalog.jsonb_typeof(m.value) = 'null'
                  OR (m.name IN ('title', 'description', 'public_url', 'jellyfin_item_id', 'jellyfin_public_url', 'namespace', 'thumbnail_url')
                      AND pg_catalog.jsonb_typeof(m.value) <> 'string')
                  OR (m.name = 'duration' AND (pg_catalog.jsonb_typeof(m.value) <> 'number' OR m.value < '0')))
           AND NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(e.payload -> 'tags') WHEN 'array' THEN e.payload -> 'tags' ELSE '[]' END) t(tag)
               WHERE pg_catalog.jsonb_typeof(t.tag) <> 'string')) IS NOT TRUE
    UNION ALL
    SELECT 'error', 'event_tells_path', e.row_id, e.event_id, 'the payload holds the server''s path of the item'
    FROM events e JOIN items i ON i.item_id = e.payload ->> 'jellyfin_item_id'
    -- The address of an object may hold the same words; published_path may be its key.
    WHERE pg_catalog.length(i.doc ->> 'Path') > 1 AND i.doc ->> 'Path' ~ '[/\\]'
      AND EXISTS (
          SELECT FROM pg_catalog.jsonb_path_query(e.payload - 'artifact_uri', 'lax $.** ? (@.type() == "string")') t(text)
          WHERE pg_catalog.strpos(t.text #>> '{}', i.doc ->> 'Path') > 0 AND t.text #>> '{}' !~ '^(s3|https?)://[^[:space:]]*$'
            AND NOT (t.text = e.payload -> 'published_path'
                     AND (pg_catalog.strpos(t.text #>> '{}', i.doc ->> 'Path') > 1
                          OR pg_catalog.right(e.payload ->> 'artifact_uri', pg_catalog.length(t.text #>> '{}')) = t.text #>> '{}')))
    UNION ALL
    SELECT 'error', 'event_with_wrong_id', e.row_id, e.event_id, 'its row and version give ' || w.event_id::pg_catalog.text
    FROM events e CROSS JOIN LATERAL (SELECT {extension}content_published_event_id(e.row_id, e.backfill_version) AS event_id) w
    WHERE w.event_id <> e.event_id
    UNION ALL
    SELECT 'warning', 'event_without_row', e.row_id, e.event_id, 'no row has the id ' || e.subject_id
    FROM events e WHERE NOT EXISTS (SELECT FROM board b WHERE b.row_id = e.row_id)
    UNION ALL
    SELECT 'warning', 'event_failed', e.row_id, e.event_id,
           e.attempts::pg_catalog.text || ' attempts; the last: ' || COALESCE(e.last_error, 'unknown')
    FROM events e WHERE e.state = 'failed'
)
SELECT f.severity, f.finding, f.row_id, f.event_id, f.detail FROM findings f ORDER BY f.severity, f.finding, f.row_id, f.event_id
