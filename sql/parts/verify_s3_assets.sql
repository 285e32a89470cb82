-- Findings of verify_s3_assets. The names in braces are put in qualified and quoted by the function.
WITH scenes AS (
    SELECT s.*, s.id::pg_catalog.text AS scene_id, COALESCE(s.asset_version, 1) AS version,
           COALESCE(s.s3_chunk_key::pg_catalog.text, '') ~ '[^[:space:]]' AS has_key,
           -- A bucket alone is no object.
           l.provider IS NOT DISTINCT FROM 's3' AND l.media_id IS NOT NULL AS has_object
    FROM {scenes} s CROSS JOIN LATERAL {extension}parse_media_link(s.s3_chunk_url::pg_catalog.text) l
), structs AS (
    SELECT 'scene'::pg_catalog.text AS entity_type, s.scene_id AS entity_id, a.asset_type, a.asset, s.version
    FROM scenes s CROSS JOIN LATERAL (VALUES ('video_chunk'::pg_catalog.text, s.video_asset), ('source_code', s.source_code_asset),
                                             ('thumbnail', s.thumbnail_asset), ('subtitle', s.subtitle_asset)) a(asset_type, asset)
    UNION ALL
    SELECT 'session', v.id::pg_catalog.text, a.asset_type, a.asset, 1
    FROM {sessions} v CROSS JOIN LATERAL (VALUES ('combined_video'::pg_catalog.text, v.combined_video_asset),
                                                 ('combined_subtitle', v.combined_subtitle_asset), ('manifest', v.manifest_asset)) a(asset_type, asset)
), refs AS (
    SELECT r.entity_type::pg_catalog.text AS entity_type, r.entity_id::pg_catalog.text AS entity_id,
           r.asset_type::pg_catalog.text AS asset_type, r.version, r.size
    FROM {references} r
), of_scenes AS (
    SELECT s.session_id::pg_catalog.text AS session_id, pg_catalog.count(*) AS scenes,
           pg_catalog.count(*) FILTER (WHERE s.assets_status = 'ready') AS ready
    FROM scenes s GROUP BY s.session_id
), of_references AS (
    SELECT CASE WHEN r.entity_type = 'session' THEN r.entity_id ELSE s.session_id::pg_catalog.text END AS session_id, pg_catalog.count(*) AS refs, pg_catalog.sum(r.size) AS size
    FROM refs r LEFT JOIN scenes s ON r.entity_type = 'scene' AND s.scene_id = r.entity_id
    WHERE r.entity_type = 'session' OR s.scene_id IS NOT NULL
    GROUP BY 1
), sums AS (
    SELECT v.id::pg_catalog.text AS session_id, v.asset_count, v.total_asset_size, v.assets_status::pg_catalog.text AS assets_status,
           COALESCE(r.refs, 0) AS refs, LEAST(COALESCE(r.size, 0), 9223372036854775807) AS size,
           CASE WHEN v.status::pg_catalog.text = 'error' THEN 'error' WHEN c.scenes > 0 AND c.ready = c.scenes THEN 'ready' ELSE 'pending' END AS wanted
    FROM {sessions} v LEFT JOIN of_scenes c ON c.session_id = v.id::pg_catalog.text
    LEFT JOIN of_references r ON r.session_id = v.id::pg_catalog.text
)
SELECT 'error'::pg_catalog.text AS severity, 'scene_without_struct'::pg_catalog.text AS finding, 'scene'::pg_catalog.text AS entity_type,
       s.scene_id AS entity_id, 'video_chunk'::pg_catalog.text AS asset_type, 'its chunk has a key and no video_asset' AS detail
FROM scenes s
WHERE (s.video_asset IS NULL OR s.video_asset = 'null') AND (s.has_key OR s.has_object)
UNION ALL
SELECT 'error', 'scene_without_struct', 'scene', s.scene_id, 'source_code', 'it has s3_source_key and no source_code_asset'
FROM scenes s
WHERE (s.source_code_asset IS NULL OR s.source_code_asset = 'null') AND COALESCE(s.s3_source_key::pg_catalog.text, '') ~ '[^[:space:]]'
UNION ALL
SELECT 'error', 'scene_not_migrated', 'scene', s.scene_id, NULL, 'assets_status, asset_version or previous_asset_versions is missing'
FROM scenes s
WHERE s.assets_status IS NULL OR s.asset_version IS NULL OR s.previous_asset_versions IS NULL OR s.previous_asset_versions = 'null'
UNION ALL
SELECT 'error', 'struct_without_reference', t.entity_type, t.entity_id, t.asset_type, 'no reference of version ' || t.version
FROM structs t LEFT JOIN refs r ON r.entity_type = t.entity_type AND r.entity_id = t.entity_id AND r.asset_type = t.asset_type AND r.version = t.version
WHERE pg_catalog.jsonb_typeof(t.asset) = 'object' AND r.entity_id IS NULL
UNION ALL
SELECT 'warning', 'reference_without_struct', r.entity_type, r.entity_id, r.asset_type,
       CASE WHEN t.entity_id IS NULL THEN 'no ' || r.entity_type || ' has this id' ELSE 'its struct is missing' END
FROM refs r LEFT JOIN structs t ON t.entity_type = r.entity_type AND t.entity_id = r.entity_id AND t.asset_type = r.asset_type
WHERE t.entity_id IS NULL OR (t.version = r.version AND pg_catalog.jsonb_typeof(t.asset) IS DISTINCT FROM 'object')
UNION ALL
SELECT 'error', 'session_out_of_date', 'session', m.session_id, NULL,
       pg_catalog.concat_ws(', ', CASE WHEN m.asset_count IS DISTINCT FROM m.refs THEN pg_catalog.format('asset_count is %s, not %s', m.asset_count, m.refs) END,
                            CASE WHEN m.total_asset_size IS DISTINCT FROM m.size THEN pg_catalog.format('total_asset_size is %s, not %s', m.total_asset_size, m.size) END,
                            CASE WHEN m.assets_status IS DISTINCT FROM m.wanted THEN pg_catalog.format('assets_status is %s, not %s', m.assets_status, m.wanted) END)
FROM sums m
WHERE m.asset_count IS DISTINCT FROM m.refs OR m.total_asset_size IS DISTINCT FROM m.size OR m.assets_status IS DISTINCT FROM m.wanted
UNION ALL
SELECT 'warning', 'no_key_in_url', 'scene', s.scene_id, 'video_chunk', 'its s3_chunk_url is no URL of an S3 object, and it has no key'
FROM scenes s
WHERE NOT s.has_key AND (s.video_asset IS NULL OR s.video_asset = 'null') AND COALESCE(s.s3_chunk_url::pg_catalog.text, '') ~ '[^[:space:]]'
  AND NOT s.has_object
ORDER BY 1, 2, 3, 4, 5
