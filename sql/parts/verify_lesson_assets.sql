-- Findings of verify_lesson_assets. $1 is an organization as text, or NULL for all. The names in braces are put in
-- qualified and quoted by the function.
WITH lessons AS (
    SELECT l.id::pg_catalog.text AS lesson_id, o.organization_id::pg_catalog.text AS organization_id, l.videos, l.documents
    FROM {lesson} l
    LEFT JOIN {course} c ON c.id = l.course_id
    LEFT JOIN {group} o ON o.id = c.group_id
    WHERE $1 IS NULL OR o.organization_id::pg_catalog.text = $1
), items AS (
    SELECT l.lesson_id, l.organization_id, s.slot_type, e.position, e.item
    FROM lessons l
    CROSS JOIN LATERAL (VALUES ('lesson_video'::pg_catalog.text, l.videos), ('lesson_document', l.documents)) s(slot_type, items)
    CROSS JOIN LATERAL (
        SELECT (a.n - 1)::pg_catalog.int4 AS position, a.item
        FROM pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof(s.items) = 'array' THEN s.items ELSE '[]' END)
             WITH ORDINALITY a(item, n)
    ) e
    WHERE l.organization_id IS NOT NULL
), normalized AS (
    SELECT i.lesson_id, i.organization_id, i.slot_type, i.position, n.outcome, n.reason, n.canonical_key,
           CASE WHEN pg_catalog.jsonb_typeof(i.item -> 'assetId') = 'string'
                 AND (i.item ->> 'assetId') ~ '^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$'
                THEN (i.item ->> 'assetId')::pg_catalog.uuid END AS asset_id
    FROM items i CROSS JOIN LATERAL {extension}normalize_lesson_media(i.slot_type, i.item) n
), joined AS (
    SELECT n.*, a.id IS NOT NULL AS asset_exists, a.organization_id::pg_catalog.text AS asset_organization_id,
           a.canonical_key::pg_catalog.text AS asset_key,
           n.outcome = 'eligible'
               OR (n.reason = 'missing_key' AND a.organization_id::pg_catalog.text = n.organization_id) AS is_eligible
    FROM normalized n LEFT JOIN {assets} a ON a.id = n.asset_id
), usages AS (
    SELECT s.asset_id, s.organization_id::pg_catalog.text AS organization_id, s.target_id::pg_catalog.text AS lesson_id,
           s.slot_type::pg_catalog.text AS slot_type, s.position::pg_catalog.int4 AS position
    FROM {usages} s
    WHERE s.target_type::pg_catalog.text = 'lesson' AND s.slot_key IS NULL
      AND s.slot_type::pg_catalog.text IN ('lesson_video', 'lesson_document')
      AND ($1 IS NULL OR s.organization_id::pg_catalog.text = $1)
), row_keys AS (
    SELECT a.id, a.organization_id::pg_catalog.text AS organization_id, a.canonical_key::pg_catalog.text AS canonical_key,
           {extension}asset_key_of_row(a.provider::pg_catalog.text, a.storage_key::pg_catalog.text, a.source_url::pg_catalog.text, a.kind::pg_catalog.text) AS own_key
    FROM {assets} a
    WHERE $1 IS NULL OR a.organization_id::pg_catalog.text = $1
), findings AS (
    SELECT 'error'::pg_catalog.text AS severity, 'item_without_asset'::pg_catalog.text AS finding, j.lesson_id, j.slot_type,
           j.position, NULL::pg_catalog.uuid AS asset_id, 'its key is ' || j.canonical_key AS detail
    FROM joined j WHERE j.is_eligible AND j.asset_id IS NULL
    UNION ALL
    SELECT 'error', 'asset_missing', j.lesson_id, j.slot_type, j.position, j.asset_id, 'no asset has this id'
    FROM joined j WHERE j.is_eligible AND j.asset_id IS NOT NULL AND NOT j.asset_exists
    UNION ALL
    SELECT 'error', 'asset_of_other_organization', j.lesson_id, j.slot_type, j.position, j.asset_id,
           'the lesson belongs to ' || j.organization_id || ', the asset to ' || COALESCE(j.asset_organization_id, 'nobody')
    FROM joined j WHERE j.is_eligible AND j.asset_exists AND j.asset_organization_id IS DISTINCT FROM j.organization_id
    UNION ALL
    SELECT 'error', 'asset_with_other_key', j.lesson_id, j.slot_type, j.position, j.asset_id,
           'the item has ' || j.canonical_key || ', the asset ' || COALESCE(j.asset_key, 'no key')
    FROM joined j
    WHERE j.outcome = 'eligible' AND j.asset_organization_id = j.organization_id AND j.asset_key IS DISTINCT FROM j.canonical_key
    UNION ALL
    SELECT 'error', 'item_without_usage', j.lesson_id, j.slot_type, j.position, j.asset_id, 'no usage joins it to its asset'
    FROM joined j
    WHERE j.is_eligible AND j.asset_organization_id = j.organization_id
      AND NOT EXISTS (SELECT FROM usages s WHERE s.asset_id = j.asset_id AND s.lesson_id = j.lesson_id
                      AND s.organization_id = j.organization_id AND s.slot_type = j.slot_type AND s.position = j.position)
    UNION ALL
    SELECT 'warning', 'asset_id_of_skipped_item', j.lesson_id, j.slot_type, j.position, j.asset_id, 'skipped: ' || j.reason
    FROM joined j WHERE NOT j.is_eligible AND j.asset_id IS NOT NULL
    UNION ALL
    SELECT 'warning', 'usage_without_item', s.lesson_id, s.slot_type, s.position, s.asset_id, 'no item at this place has the asset'
    FROM usages s
    WHERE NOT EXISTS (SELECT FROM joined j WHERE j.lesson_id = s.lesson_id AND j.slot_type = s.slot_type
                      AND j.position = s.position AND j.asset_id = s.asset_id)
    UNION ALL
    SELECT 'error', 'duplicate_key', NULL, NULL, NULL, (pg_catalog.min(k.id::pg_catalog.text))::pg_catalog.uuid,
           pg_catalog.count(*)::pg_catalog.text || ' assets of organization ' || k.organization_id || ' have the key ' || k.canonical_key
    FROM row_keys k WHERE k.canonical_key IS NOT NULL
    GROUP BY k.organization_id, k.canonical_key HAVING pg_catalog.count(*) > 1
    UNION ALL
    SELECT 'error', 'asset_with_wrong_key', NULL, NULL, NULL, k.id,
           'stored ' || k.canonical_key || ', its fields give ' || COALESCE(k.own_key, 'none')
    FROM row_keys k WHERE k.canonical_key IS NOT NULL AND k.own_key IS DISTINCT FROM k.canonical_key
    UNION ALL
    SELECT CASE WHEN t.id IS NULL THEN 'error' ELSE 'warning' END,
           CASE WHEN t.id IS NULL THEN 'asset_without_key' ELSE 'twin_without_key' END, NULL, NULL, NULL, k.id,
           CASE WHEN t.id IS NULL THEN 'its fields give ' || k.own_key ELSE t.id::pg_catalog.text || ' has the key ' || k.own_key END
    FROM row_keys k
    LEFT JOIN row_keys t ON t.organization_id = k.organization_id AND t.canonical_key = k.own_key
    WHERE k.canonical_key IS NULL AND k.own_key IS NOT NULL
)
SELECT f.severity, f.finding, f.lesson_id, f.slot_type, f.position, f.asset_id, f.detail
FROM findings f ORDER BY f.severity, f.finding, f.lesson_id, f.slot_type, f.position
