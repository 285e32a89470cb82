-- Findings of verify_i2v_thumbnails. The names in braces are put in qualified and quoted by the function. Blanks are
-- Unicode's White_Space and U+FEFF, as everywhere.
WITH RECURSIVE blanks AS (
    SELECT E'\u0009\u000A\u000B\u000C\u000D\u0020\u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF' AS list
), known AS (
    SELECT m.id::pg_catalog.text AS id, m.type::pg_catalog.text AS type, m.is_public,
           pg_catalog.btrim(COALESCE(m.thumbnail_url::pg_catalog.text, ''), blanks.list) <> '' AS has_url,
           CASE WHEN m.thumbnail_urls IS NULL OR pg_catalog.jsonb_typeof(m.thumbnail_urls) = 'null' THEN 'missing'
                WHEN pg_catalog.jsonb_typeof(m.thumbnail_urls) <> 'object' THEN 'malformed'
                WHEN EXISTS (SELECT FROM pg_catalog.jsonb_each(m.thumbnail_urls) e WHERE pg_catalog.jsonb_typeof(e.value) <> 'string') THEN 'malformed'
                WHEN EXISTS (SELECT FROM pg_catalog.jsonb_each_text(m.thumbnail_urls) e WHERE pg_catalog.btrim(e.value, blanks.list) <> '') THEN 'usable'
                ELSE 'missing' END AS map,
           CASE WHEN pg_catalog.jsonb_typeof(m.metadata -> 'originalMediaId') = 'string' THEN m.metadata ->> 'originalMediaId' END AS original
    FROM {media} m
    CROSS JOIN blanks
), jobs AS (
    SELECT j.job_id::pg_catalog.text AS job_id, j.result_media_id::pg_catalog.text AS result_media_id,
           COALESCE(NULLIF(pg_catalog.btrim(j.media_id::pg_catalog.text, blanks.list), ''), NULLIF(pg_catalog.btrim(j.original_media_id::pg_catalog.text, blanks.list), '')) IS NOT NULL AS has_source,
           CASE WHEN NULLIF(pg_catalog.btrim(j.media_id::pg_catalog.text, blanks.list), '') IS NOT NULL THEN j.media_id::pg_catalog.text
                ELSE j.original_media_id::pg_catalog.text END AS source
    FROM {jobs} j CROSS JOIN blanks
), by_result AS (
    SELECT DISTINCT ON (j.result_media_id) j.result_media_id, j.has_source, j.source
    FROM jobs j WHERE j.result_media_id IS NOT NULL ORDER BY j.result_media_id, j.job_id COLLATE pg_catalog."C"
), source_of AS (
    SELECT k.id,
           CASE WHEN j.job_id IS NOT NULL THEN CASE WHEN j.has_source THEN j.source END
                WHEN r.result_media_id IS NOT NULL THEN CASE WHEN r.has_source THEN r.source END
                WHEN pg_catalog.btrim(COALESCE(k.original, ''), blanks.list) <> '' THEN k.original END AS source
    FROM known k CROSS JOIN blanks LEFT JOIN jobs j ON j.job_id = k.id LEFT JOIN by_result r ON r.result_media_id = k.id
), lacking AS (
    SELECT k.id, k.is_public, NOT k.has_url AS lacks_url, k.map = 'missing' AS lacks_map, s.source
    FROM known k JOIN source_of s ON s.id = k.id
    WHERE k.type = 'video' AND s.source IS NOT NULL AND (NOT k.has_url OR k.map = 'missing')
), walk AS (
    -- One row for each member up the chain: whether it may pass to the row below, and whether maps still may.
    SELECT l.id AS video, k.id AS member, k.has_url, k.map, k.is_public, true AS map_passes,
           k.is_public IS FALSE AND l.is_public IS NOT FALSE AS kept_back, ARRAY[k.id] AS path
    FROM lacking l JOIN known k ON k.id = l.source
    WHERE k.id <> l.id
    UNION ALL
    SELECT w.video, k.id, k.has_url, k.map, k.is_public, w.map_passes AND w.map <> 'malformed',
           w.kept_back OR (k.is_public IS FALSE AND w.is_public IS NOT FALSE), w.path || k.id
    FROM walk w JOIN source_of s ON s.id = w.member JOIN known k ON k.id = s.source
    WHERE k.id <> ALL (w.path) AND k.id <> w.video
), returning_to AS (
    SELECT DISTINCT w.video FROM walk w JOIN source_of s ON s.id = w.member WHERE s.source = w.video
), offered AS (
    SELECT w.video,
           pg_catalog.bool_or(NOT w.kept_back AND (w.has_url OR w.map = 'usable')) AS url,
           pg_catalog.bool_or(NOT w.kept_back AND w.map = 'usable' AND w.map_passes) AS map,
           pg_catalog.bool_or(w.kept_back AND (w.has_url OR w.map = 'usable')) AS private
    FROM walk w GROUP BY w.video
)
SELECT CASE WHEN c.video IS NULL THEN 'error' ELSE 'warning' END::pg_catalog.text AS severity,
       CASE WHEN c.video IS NULL THEN 'thumbnails_missing' ELSE 'thumbnails_missing_in_cycle' END::pg_catalog.text AS finding,
       l.id AS media_id, l.source AS source_media_id,
       'it lacks ' || pg_catalog.concat_ws(' and ', CASE WHEN l.lacks_url AND o.url THEN 'thumbnail_url' END,
                                           CASE WHEN l.lacks_map AND o.map THEN 'thumbnail_urls' END) || ', which a source has' AS detail
FROM lacking l JOIN offered o ON o.video = l.id LEFT JOIN returning_to c ON c.video = l.id
WHERE (l.lacks_url AND o.url) OR (l.lacks_map AND o.map)
UNION ALL
SELECT 'warning', 'source_is_private', l.id, l.source, 'what a private source has is not given to a public video'
FROM lacking l JOIN offered o ON o.video = l.id
WHERE o.private AND NOT ((l.lacks_url AND o.url) OR (l.lacks_map AND o.map))
UNION ALL
SELECT 'warning', 'source_media_not_found', l.id, l.source, 'no media has the id of its source'
FROM lacking l WHERE NOT EXISTS (SELECT FROM known k WHERE k.id = l.source)
UNION ALL
SELECT 'warning', 'thumbnails_malformed', k.id, NULL, 'its thumbnail_urls is no object of strings'
FROM known k WHERE k.map = 'malformed'
ORDER BY 1, 2, 3
