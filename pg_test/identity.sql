-- Examples of the identity functions; the vectors and the golden keys hold the rest.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS media_assets;
SELECT no_plan();

SELECT is(asset_key_version(), 1, 'key version');
SELECT is(asset_canonical_key(provider, locator, kind), key, format('%s %s', provider, locator))
FROM (VALUES
  ('upload', ' Folder/My File.mp4 ', NULL, 'upload:Folder/My File.mp4'),
  ('UPLOAD', 'a', 'video', 'upload:a'),
  ('google_drive', '1AbCdEf_gh-ij', 'video', 'google_drive:1AbCdEf_gh-ij'),
  ('google_drive', 'https://drive.google.com/file/d/1AbCdEf_gh-ij/view?usp=sharing', NULL, 'google_drive:1AbCdEf_gh-ij'),
  ('youtube', 'https://youtu.be/dQw4w9WgXcQ?t=4', 'video', 'youtube:video:dQw4w9WgXcQ'),
  ('youtube', 'dQw4w9WgXcQ', NULL, 'youtube:video:dQw4w9WgXcQ'),
  ('generic', 'HTTPS://X.test:443/a/../b?z=1&a=2#f', NULL, 'generic:other:https://x.test/b?z=1&a=2'),
  ('external_url', 'https://x.test/a.pdf', 'document', 'external_url:document:https://x.test/a.pdf'),
  ('external_url', 'https://x.test/a.pdf', ' ', 'external_url:other:https://x.test/a.pdf'),
  ('plex', '1234', NULL, 'plex:1234'),
  ('jellyfin', '0123ABCD-0123-4567-89AB-0123456789AB', NULL, 'jellyfin:0123abcd0123456789ab0123456789ab'),
  ('s3', 's3://bucket/a/b.mp4', NULL, 's3:bucket/a/b.mp4'),
  ('s3', 'bucket/a/b.mp4', NULL, 's3:bucket/a/b.mp4'),
  ('s3', 'https://x.test/a', NULL, NULL),
  ('filesystem', '/a//b/../c', NULL, 'filesystem:/a/c'),
  ('external_url', 'javascript:alert(1)', 'video', NULL),
  ('', 'a', NULL, NULL),
  ('upload', E' \uFEFF\u2003', NULL, NULL),
  (NULL, 'a', NULL, NULL),
  ('upload', NULL, NULL, NULL)
) AS example (provider, locator, kind, key);
SELECT is(octet_length(asset_canonical_key('upload', repeat('x', 993))), 1000, 'a key of 1,000 bytes stays');
SELECT is(asset_canonical_key('upload', repeat('x', 994)), 'upload:sha256:' || encode(sha256(convert_to('upload:' || repeat('x', 994), 'UTF8')), 'hex'), 'a longer one is hashed');

SELECT is(canonical_url(link), url, 'canonical_url ' || link)
FROM (VALUES
  ('x.test/A%7eb?q=%2f', 'https://x.test/A~b?q=%2F'),
  ('http://X.test:80', 'http://x.test/'),
  ('https://x.test/#/route', 'https://x.test/#/route'),
  ('https://x.test/a?X-Amz-Signature=1&b=2', 'https://x.test/a?b=2'),
  ('https://x.test/a?X-Amz-Signature=1', 'https://x.test/a'),
  ('https://x.test/a?Expires=1', 'https://x.test/a?Expires=1'),
  ('<iframe width="5" src="//x.test/e"></iframe>', 'https://x.test/e'),
  ('/hls/x.m3u8', '/hls/x.m3u8'),
  ('s3://Bucket/K', 's3://Bucket/K'),
  ('javascript:alert(1)', NULL),
  ('no link', NULL)
) AS example (link, url);

SELECT row_eq($$SELECT * FROM parse_media_link(NULL)$$, ROW(NULL::text, NULL::text, NULL::text, NULL::text, facets), 'a row of NULLs')
FROM parse_media_link(NULL);
SELECT row_eq($$SELECT * FROM parse_media_link('data:x')$$, ROW(NULL::text, NULL::text, NULL::text, NULL::text, '{}'::jsonb), 'a refused link');
SELECT row_eq($$SELECT * FROM parse_media_link('https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=1m4s&list=PL1')$$,
  ROW('youtube'::text, 'video'::text, 'dQw4w9WgXcQ'::text, 'https://www.youtube.com/watch?v=dQw4w9WgXcQ'::text, '{"start": 64, "list": "PL1"}'::jsonb), 'a video and how it is used');
SELECT row_eq($$SELECT provider, media_kind, media_id FROM parse_media_link('https://youtube.com.evil.org/watch?v=dQw4w9WgXcQ')$$,
  ROW('external_url'::text, 'other'::text, NULL::text), 'hosts are matched on whole labels');
SELECT is((SELECT count(*)::int FROM unnest(ARRAY[NULL, '', 'x', 'https://youtu.be/dQw4w9WgXcQ']) link, LATERAL parse_media_link(link)), 4, 'LATERAL loses no row');

SELECT is(infer_mime_type('Video/MP4; codecs=x', 'a.pdf', NULL), 'video/mp4', 'declared first');
SELECT is(infer_mime_type(NULL, 'A.PDF', NULL), 'application/pdf', 'then the file name');
SELECT is(infer_mime_type('application/octet-stream', NULL, 'https://x.test/a%2Emp4?x=.pdf#.doc'), 'video/mp4', 'then the path of the link');
SELECT is(infer_mime_type(NULL, NULL, 'https://example.mov'), NULL, 'a host is no file name');
SELECT is(infer_mime_type(NULL, NULL, NULL), NULL, 'nothing known');
SELECT is(infer_asset_kind('application/vnd.apple.mpegurl'), 'video', 'a manifest is a video');
SELECT is(infer_asset_kind('application/pdf'), 'document', 'a document');
SELECT is(infer_asset_kind(NULL), 'other', 'unknown');
SELECT is(infer_asset_kind(NULL, 'video'), 'video', 'the fallback');
SELECT is(infer_asset_kind('chemical/x-pdb', 'x'), 'x', 'another top-level type');

SELECT is(normalize_path(path), expected, 'normalize_path ' || path)
FROM (VALUES ('C:\Movies\a.mkv', '/c/Movies/a.mkv'), ('\\SRV\Share\x', '//srv/Share/x'), ('/a\b', '/a\b'), ('file:///mnt/a%20b', '/mnt/a b'),
             ('a/..', '.'), ('../a', '../a'), ('///a//b/', '/a/b'), ('', NULL)) AS example (path, expected);
SELECT is(normalize_path('/Straße/É', false), normalize_path('/STRASSE/e' || U&'\0301', false), 'folded in full, then NFC');

SELECT is(enricher_checksum('[{"enricher_id": "b", "priority": "2", "x": 1}, {"enricher_id": "a", "priority": 1}]'),
  encode(sha256('[{"enricher_id": "a", "priority": 1}, {"enricher_id": "b", "priority": 2}]'), 'hex'), 'the form that existing checksums were made of');
SELECT is(enricher_checksum('[]'), NULL, 'no enrichers');
SELECT is(enricher_checksum('{}'), NULL, 'no array');
SELECT is(content_signature(repeat('AB', 32), 5, NULL), 'sha256:' || repeat('ab', 32), 'a strong hash');
SELECT is(content_signature('md5:abc', 5, '1970-01-01 00:00:01.5+00'), 'stat:5:1500000', 'size and time');
SELECT is(content_signature(NULL, 5, NULL), 'size:5', 'size alone');
SELECT is(content_signature(NULL, NULL, now()), NULL, 'a time alone is nothing');

-- Used in unique indexes, in parallel plans and in generated columns.
CREATE TEMP TABLE links (link text, key text GENERATED ALWAYS AS (asset_canonical_key('generic', link)) STORED);
CREATE UNIQUE INDEX ON links (canonical_url(link));
CREATE INDEX ON links ((asset_canonical_key('generic', link, 'video')));
SELECT lives_ok($$INSERT INTO links VALUES ('https://x.test/a'), ('https://x.test/b')$$, 'indexed');
SELECT throws_ok($$INSERT INTO links VALUES ('HTTPS://X.TEST:443/a')$$, '23505', NULL, 'two forms of one link meet in the index');
SELECT is((SELECT key FROM links ORDER BY link LIMIT 1), 'generic:other:https://x.test/a', 'generated');

SELECT * FROM finish();
ROLLBACK;
