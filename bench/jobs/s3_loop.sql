-- Row by row in one transaction, with prepared plans that do not flip: scene, its references, then session by session.
SET enable_seqscan = off;
SET plan_cache_mode = force_generic_plan;
DO $$
DECLARE scene record; session record; video jsonb; source jsonb; sums record;
BEGIN
  FOR scene IN SELECT * FROM scenes ORDER BY id LOOP
    CONTINUE WHEN scene.video_asset IS NOT NULL OR scene.s3_chunk_key IS NULL;
    video := jsonb_strip_nulls(jsonb_build_object('s3Key', scene.s3_chunk_key, 's3Url', canonical_url(scene.s3_chunk_url),
      'contentType', coalesce(infer_mime_type(NULL, scene.s3_chunk_key, NULL), 'video/mp4'), 'checksum', nullif(scene.checksum, ''),
      'uploadedAt', trim_scale(extract(epoch FROM scene.updated_at))));
    source := jsonb_strip_nulls(jsonb_build_object('s3Key', scene.s3_source_key,
      's3Url', regexp_replace(canonical_url(scene.s3_chunk_url), '^(https://[^/]+/).*$', '\1') || scene.s3_source_key,
      'contentType', coalesce(infer_mime_type(NULL, scene.s3_source_key, NULL), 'text/plain'), 'uploadedAt', trim_scale(extract(epoch FROM scene.updated_at))));
    UPDATE scenes SET video_asset = video, source_code_asset = source, assets_status = coalesce(assets_status, 'ready'),
      asset_version = coalesce(asset_version, 1), previous_asset_versions = coalesce(previous_asset_versions, '[]') WHERE id = scene.id;
    INSERT INTO asset_references (entity_type, entity_id, asset_type, s3_key, s3_url, content_type, checksum, version, metadata)
    VALUES ('scene', scene.id, 'video_chunk', video ->> 's3Key', video ->> 's3Url', video ->> 'contentType', video ->> 'checksum', 1,
            jsonb_build_object('migratedFromLegacy', true, 'sceneIndex', scene.index, 'projectId', scene.project_id)) ON CONFLICT DO NOTHING;
    INSERT INTO asset_references (entity_type, entity_id, asset_type, s3_key, s3_url, content_type, checksum, version, metadata)
    VALUES ('scene', scene.id, 'source_code', source ->> 's3Key', source ->> 's3Url', source ->> 'contentType', NULL, 1,
            jsonb_build_object('migratedFromLegacy', true, 'sceneIndex', scene.index, 'projectId', scene.project_id)) ON CONFLICT DO NOTHING;
  END LOOP;
  FOR session IN SELECT * FROM video_sessions ORDER BY id LOOP
    SELECT count(*) AS scenes, count(*) FILTER (WHERE s.assets_status = 'ready') AS ready INTO sums FROM scenes s WHERE s.session_id = session.id;
    UPDATE video_sessions SET assets_status = CASE WHEN sums.scenes > 0 AND sums.scenes = sums.ready THEN 'ready' ELSE 'pending' END,
      asset_count = (SELECT count(*) FROM scenes s JOIN asset_references r ON r.entity_type = 'scene' AND r.entity_id = s.id WHERE s.session_id = session.id),
      total_asset_size = (SELECT coalesce(sum(r.size), 0) FROM scenes s JOIN asset_references r ON r.entity_type = 'scene' AND r.entity_id = s.id WHERE s.session_id = session.id)
    WHERE id = session.id;
  END LOOP;
END $$;
