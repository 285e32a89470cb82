\echo
\echo '━━ 1. What is there ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'A school platform: lessons belong to courses, courses to groups, groups to schools.'
\echo

SELECT o.name AS school, count(DISTINCT c.id) AS courses, count(l.id) AS lessons,
       sum(CASE jsonb_typeof(l.videos) WHEN 'array' THEN jsonb_array_length(l.videos) END) AS videos,
       sum(CASE jsonb_typeof(l.documents) WHEN 'array' THEN jsonb_array_length(l.documents) END) AS documents
FROM lesson l
LEFT JOIN course c ON c.id = l.course_id
LEFT JOIN "group" g ON g.id = c.group_id
LEFT JOIN organization o ON o.id = g.organization_id
GROUP BY o.id, o.name
ORDER BY o.name;

\echo 'Media are buried in two jsonb columns of each lesson, in every shape that the years have brought:'
\echo

SELECT l.title AS lesson, left(item::text, 72) AS video
FROM lesson l, jsonb_array_elements(l.videos) WITH ORDINALITY AS video (item, place)
WHERE l.id::text LIKE '00000000-%' AND l.title IN ('Fractions', 'Volcanoes', 'Old importer', 'Broken editor', 'Copied from Riverside')
ORDER BY l.id, place;
