-- A million arguments of each form, made beforehand.
CREATE UNLOGGED TABLE key_arguments AS
SELECT 'uploads/2026/Recording_' || n || '.mp4' AS upload,
       'https://www.youtube.com/watch?v=abcd' || 1000000 + n AS youtube,
       'https://media.example/watch/' || n || '.mp4?quality=high' AS generic
FROM generate_series(1, 1000000) n;
VACUUM ANALYZE key_arguments;
