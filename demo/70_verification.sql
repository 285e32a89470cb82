\echo
\echo '━━ 7. Verification ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Derived again from the tables, by SQL of its own. An error is something that a run should have'
\echo 'repaired; a warning is known and left.'
\echo
\echo '   SELECT * FROM verify_lesson_assets();'
\echo

CREATE TABLE demo.findings AS SELECT * FROM verify_lesson_assets();

SELECT severity, finding, count(*) AS places, left(min(detail), 60) AS "for example"
FROM demo.findings GROUP BY severity, finding ORDER BY severity, places DESC;

\t on
SELECT demo.assert(count(*) = 0, 'verified: no errors') FROM demo.findings WHERE severity = 'error';
\t off
