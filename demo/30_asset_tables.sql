\echo
\echo '━━ 3. The tables ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Ordinary tables of the application, in its own schema. Called again, it changes nothing.'
\echo
\echo '   SELECT * FROM create_asset_tables();'
\echo

SELECT relation, left(regexp_replace(ddl, '\s+', ' ', 'g'), 62) AS ddl, executed FROM create_asset_tables();

-- Since then the application stores its streams as assets: their manifest is there, and not in the lesson.
-- One of them belongs to Riverside, and a lesson of Northside was copied with its assetId.
INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, title, is_external, status, metadata, byte_size)
SELECT id::uuid, md5('organization ' || organization)::uuid, 'video', 'upload', 's3', storage_key, title, false, 'active', '{}', byte_size
FROM (
  VALUES ('5e000000-0000-4000-8000-000000000001', 1, 'streams/volcano/index.m3u8', 'Stream', NULL::bigint),
         ('5e000000-0000-4000-8000-000000000002', 2, 'shared/welcome.mp4', 'Welcome', 7340032)
  UNION ALL
  SELECT md5('stream ' || n)::uuid::text, 1 + n % 5, 'streams/' || n || '/index.m3u8', 'Stream ' || n, 5000000 + n
  FROM generate_series(0, 39) n
) AS stream (id, organization, storage_key, title, byte_size);

\echo 'The application has stored 42 assets itself; the triggers gave each its key:'
\echo

SELECT o.name AS school, count(*) AS assets, min(a.canonical_key) AS "for example"
FROM assets a JOIN organization o ON o.id = a.organization_id
GROUP BY o.name ORDER BY o.name;
