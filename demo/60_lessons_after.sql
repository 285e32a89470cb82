\echo
\echo '━━ 6. What became of the lessons ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Only assetId is written. Broken neighbours, odd values and number digits stay as they were:'
\echo

SELECT l.title AS lesson, '…' || right(item ->> 'assetId', 8) AS "assetId",
       left((CASE jsonb_typeof(item) WHEN 'object' THEN item - 'assetId' ELSE item END)::text, 62) AS "the rest of the video"
FROM lesson l, jsonb_array_elements(l.videos) WITH ORDINALITY AS video (item, place)
WHERE l.id::text LIKE '00000000-%' AND l.title IN ('Volcanoes', 'Broken editor', 'Copied from Riverside', 'Odd values')
ORDER BY l.id, place;

-- An item without its assetId, malformed ones included; a column that is no array is compared as it is.
CREATE FUNCTION demo.without_asset_ids(items jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN jsonb_typeof(items) = 'array'
              THEN (SELECT jsonb_agg(CASE jsonb_typeof(item) WHEN 'object' THEN item - 'assetId' ELSE item END ORDER BY place)
                    FROM jsonb_array_elements(items) WITH ORDINALITY AS element (item, place))
              ELSE items END
$$;

\t on
SELECT demo.assert(count(*) FILTER (WHERE demo.without_asset_ids(l.videos) IS DISTINCT FROM demo.without_asset_ids(b.videos)
                                       OR demo.without_asset_ids(l.documents) IS DISTINCT FROM demo.without_asset_ids(b.documents)
                                       OR (l.course_id, l.title, l.updated_at) IS DISTINCT FROM (b.course_id, b.title, b.updated_at)) = 0
                   AND count(*) = (SELECT count(*) FROM lesson),
                   'nothing but assetId differs in any of the ' || count(*) || ' lessons')
FROM lesson l JOIN demo.before b USING (id);
\t off
