-- What a careful DBA would write in plpgsql: row by row in one transaction, with the extension's rules for one item
-- and plans that do not flip.
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET plan_cache_mode = force_generic_plan;
DO $$
DECLARE
  lesson record; slot record; media record; item record; asset uuid; patched jsonb;
BEGIN
  FOR lesson IN
    SELECT l.id, l.videos, l.documents, g.organization_id
    FROM lesson l JOIN course c ON c.id = l.course_id JOIN "group" g ON g.id = c.group_id ORDER BY l.id
  LOOP
    FOR slot IN SELECT * FROM (VALUES ('lesson_video', lesson.videos), ('lesson_document', lesson.documents)) AS slots (type, items) LOOP
      patched := slot.items;
      FOR item IN SELECT value, ordinality - 1 AS place FROM jsonb_array_elements(slot.items) WITH ORDINALITY LOOP
        SELECT * INTO media FROM normalize_lesson_media(slot.type, item.value);
        CONTINUE WHEN media.outcome <> 'eligible';
        SELECT a.id INTO asset FROM assets a WHERE a.organization_id = lesson.organization_id AND a.canonical_key = media.canonical_key;
        IF asset IS NULL THEN
          INSERT INTO assets (organization_id, kind, provider, storage_provider, storage_key, source_url, mime_type, byte_size, title, description,
                              thumbnail_url, duration_seconds, aspect_ratio, is_external, status, metadata, canonical_key)
          VALUES (lesson.organization_id, media.kind, media.provider, media.storage_provider, media.storage_key, media.source_url, media.mime_type,
                  media.byte_size, media.title, media.description, media.thumbnail_url, media.duration_seconds, media.aspect_ratio,
                  media.is_external, 'active', media.metadata, media.canonical_key)
          RETURNING id INTO asset;
        END IF;
        INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, "position")
        VALUES (lesson.organization_id, asset, 'lesson', lesson.id::text, slot.type, NULL, item.place)
        ON CONFLICT DO NOTHING;
        patched := jsonb_set(patched, ARRAY[item.place::text, 'assetId'], to_jsonb(asset::text));
      END LOOP;
      IF slot.type = 'lesson_video' THEN lesson.videos := patched; ELSE lesson.documents := patched; END IF;
    END LOOP;
    UPDATE lesson l SET videos = lesson.videos, documents = lesson.documents WHERE l.id = lesson.id;
  END LOOP;
END $$;
