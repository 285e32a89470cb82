-- The same by set-based statements, with the extension's rules for URLs and types.
BEGIN;
WITH migrated AS (
    UPDATE scenes s
    SET video_asset = CASE WHEN s.video_asset IS NOT NULL AND s.video_asset <> 'null' THEN s.video_asset ELSE
            jsonb_strip_nulls(jsonb_build_object('s3Key', s.s3_chunk_key, 's3Url', canonical_url(s.s3_chunk_url),
                'contentType', coalesce(infer_mime_type(NULL, s.s3_chunk_key, NULL), 'video/mp4'), 'checksum', nullif(s.checksum, ''),
                'uploadedAt', trim_scale(extract(epoch FROM s.updated_at)))) END,
        source_code_asset = CASE WHEN s.source_code_asset IS NOT NULL AND s.source_code_asset <> 'null' THEN s.source_code_asset
            WHEN s.s3_source_key IS NOT NULL THEN
            jsonb_strip_nulls(jsonb_build_object('s3Key', s.s3_source_key,
                's3Url', regexp_replace(canonical_url(s.s3_chunk_url), '^(https://[^/]+/).*$', '\1') || s.s3_source_key,
                'contentType', coalesce(infer_mime_type(NULL, s.s3_source_key, NULL), 'text/plain'), 'uploadedAt', trim_scale(extract(epoch FROM s.updated_at)))) END,
        assets_status = coalesce(s.assets_status, CASE WHEN s.status = 'error' THEN 'error' WHEN s.s3_chunk_key IS NOT NULL THEN 'ready' ELSE 'pending' END),
        assets_error_message = coalesce(s.assets_error_message, CASE WHEN s.status = 'error' THEN s.error_message END),
        asset_version = coalesce(s.asset_version, 1), previous_asset_versions = coalesce(s.previous_asset_versions, '[]')
    WHERE (s.video_asset IS NULL OR s.video_asset = 'null') AND s.s3_chunk_key IS NOT NULL
    RETURNING s.*
)
INSERT INTO asset_references (entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version, metadata)
SELECT 'scene', m.id, a.asset_type, a.asset ->> 's3Key', a.asset ->> 's3Url', a.asset ->> 'contentType', nullif((a.asset ->> 'size')::bigint, 0),
       nullif(a.asset ->> 'checksum', ''), m.asset_version,
       jsonb_strip_nulls(jsonb_build_object('migratedFromLegacy', true, 'sceneIndex', m.index, 'projectId', m.project_id))
FROM migrated m CROSS JOIN LATERAL (VALUES ('video_chunk', m.video_asset), ('source_code', m.source_code_asset), ('thumbnail', m.thumbnail_asset),
                                           ('subtitle', m.subtitle_asset)) a(asset_type, asset)
WHERE a.asset IS NOT NULL
ON CONFLICT DO NOTHING;
UPDATE video_sessions v SET asset_count = t.refs, total_asset_size = t.size, assets_status = t.wanted
FROM (SELECT v.id, coalesce(r.refs, 0) AS refs, coalesce(r.size, 0) AS size,
             CASE WHEN v.status = 'error' THEN 'error' WHEN c.scenes > 0 AND c.ready = c.scenes THEN 'ready' ELSE 'pending' END AS wanted
      FROM video_sessions v
      LEFT JOIN (SELECT session_id, count(*) AS scenes, count(*) FILTER (WHERE assets_status = 'ready') AS ready FROM scenes GROUP BY 1) c ON c.session_id = v.id
      LEFT JOIN (SELECT coalesce(s.session_id, r.entity_id) AS session_id, count(*) AS refs, sum(r.size) AS size
                 FROM asset_references r LEFT JOIN scenes s ON r.entity_type = 'scene' AND s.id = r.entity_id GROUP BY 1) r ON r.session_id = v.id) t
WHERE t.id = v.id AND (v.asset_count, v.total_asset_size, v.assets_status) IS DISTINCT FROM (t.refs, t.size, t.wanted);
COMMIT;
