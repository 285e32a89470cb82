\echo
\echo '━━ Summary ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo

SELECT o.name AS school,
       count(*) AS assets,
       count(*) FILTER (WHERE NOT is_external) AS uploads,
       count(*) FILTER (WHERE is_external) AS links,
       (SELECT count(*) FROM asset_usages u WHERE u.organization_id = o.id) AS usages,
       pg_size_pretty(sum(byte_size)) AS "known size"
FROM assets a JOIN organization o ON o.id = a.organization_id
GROUP BY o.id, o.name ORDER BY o.name;

SELECT kind, count(*) AS assets, count(DISTINCT provider) AS providers, count(byte_size) AS "with size"
FROM assets GROUP BY kind ORDER BY assets DESC;
