\echo
\echo '━━ 4. Why? ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Each item has one outcome and one reason. These are the decisions of the dry run, item by item:'
\echo
\echo '   SELECT * FROM explain_lesson_assets(max_lessons => 11);'
\echo

CREATE TEMPORARY VIEW explained AS
SELECT l.title AS lesson, e.*, replace(e.slot_type, 'lesson_', '') || ' ' || e.position AS item
FROM explain_lesson_assets(max_lessons => 11) e JOIN lesson l ON l.id::text = e.lesson_id;

SELECT lesson, item, coalesce(action, reason) AS decision, usage_action AS usage, left(canonical_key, 28) AS canonical_key
FROM explained
ORDER BY lesson_id, slot_type DESC, position;

DROP VIEW explained;

\echo 'Three spellings of one YouTube video are one asset; so are one file under two signatures, and one'
\echo 'upload in two lessons. Northside does not get Riverside''s welcome.mp4: it gets an asset of its own.'
\echo
\echo 'All skipped items, by reason:'
\echo

SELECT reason, count(*) AS items, count(DISTINCT lesson_id) AS lessons
FROM explain_lesson_assets() WHERE outcome = 'skipped'
GROUP BY reason ORDER BY items DESC;
