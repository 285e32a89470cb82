-- The same by one statement: walk up from each video that lacks something, take the nearest of each field.
WITH RECURSIVE lacking AS (
    SELECT m.id, m.thumbnail_url IS NULL OR m.thumbnail_url = '' AS lacks_url,
           m.thumbnail_urls IS NULL OR m.thumbnail_urls IN ('null', '{}') AS lacks_map, m.is_public
    FROM media m WHERE m.type = 'video' AND (m.thumbnail_url IS NULL OR m.thumbnail_url = '' OR m.thumbnail_urls IS NULL OR m.thumbnail_urls IN ('null', '{}'))
), walk AS (
    SELECT l.id AS video, l.id AS member, 0 AS depth, ARRAY[l.id] AS path, l.is_public FROM lacking l
    UNION ALL
    SELECT w.video, s.id, w.depth + 1, w.path || s.id, s.is_public
    FROM walk w
    JOIN media m ON m.id = w.member
    LEFT JOIN i2v_jobs j ON j.job_id = m.id
    LEFT JOIN LATERAL (SELECT r.media_id, r.original_media_id FROM i2v_jobs r WHERE r.result_media_id = m.id AND j.job_id IS NULL
                       ORDER BY r.job_id COLLATE "C" LIMIT 1) r ON true
    JOIN media s ON s.id = COALESCE(j.media_id, j.original_media_id, r.media_id, r.original_media_id, m.metadata ->> 'originalMediaId')
    WHERE s.id <> ALL (w.path) AND NOT (s.is_public IS FALSE AND w.is_public IS NOT FALSE)
), found AS (
    SELECT w.video, (array_agg(s.thumbnail_url ORDER BY w.depth) FILTER (WHERE s.thumbnail_url <> ''))[1] AS url,
           (array_agg(s.thumbnail_urls ORDER BY w.depth) FILTER (WHERE jsonb_typeof(s.thumbnail_urls) = 'object' AND s.thumbnail_urls <> '{}'))[1] AS urls
    FROM walk w JOIN media s ON s.id = w.member WHERE w.depth > 0 GROUP BY w.video
)
UPDATE media m
SET thumbnail_url = CASE WHEN l.lacks_url THEN COALESCE(f.url, f.urls ->> 'small') ELSE m.thumbnail_url END,
    thumbnail_urls = CASE WHEN l.lacks_map THEN f.urls ELSE m.thumbnail_urls END, updated_at = now()
FROM found f JOIN lacking l ON l.id = f.video
WHERE m.id = f.video AND (f.url IS NOT NULL OR f.urls IS NOT NULL);
