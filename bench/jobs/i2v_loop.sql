-- Row by row in one transaction, with prepared plans that do not flip: a read for each job and each source.
SET enable_seqscan = off;
SET plan_cache_mode = force_generic_plan;
DO $$
DECLARE video record; source record; at text; up text; url text; urls jsonb; seen text[];
BEGIN
  FOR video IN SELECT id, thumbnail_url, thumbnail_urls, is_public FROM media WHERE type = 'video' ORDER BY id LOOP
    CONTINUE WHEN video.thumbnail_url <> '' AND video.thumbnail_urls <> '{}';
    at := video.id; url := video.thumbnail_url; urls := video.thumbnail_urls; seen := ARRAY[at];
    LOOP
      SELECT coalesce(media_id, original_media_id) INTO up FROM i2v_jobs WHERE job_id = at;
      IF up IS NULL THEN
        SELECT coalesce(media_id, original_media_id) INTO up FROM i2v_jobs WHERE result_media_id = at ORDER BY job_id LIMIT 1;
      END IF;
      EXIT WHEN up IS NULL OR up = ANY (seen);
      SELECT id, thumbnail_url, thumbnail_urls, is_public INTO source FROM media WHERE id = up;
      EXIT WHEN source.id IS NULL;
      url := coalesce(url, source.thumbnail_url); urls := coalesce(urls, source.thumbnail_urls);
      seen := seen || up; at := up;
      EXIT WHEN url IS NOT NULL AND urls IS NOT NULL;
    END LOOP;
    IF url IS DISTINCT FROM video.thumbnail_url OR urls IS DISTINCT FROM video.thumbnail_urls THEN
      UPDATE media SET thumbnail_url = url, thumbnail_urls = urls, updated_at = now() WHERE id = video.id;
    END IF;
  END LOOP;
END $$;
