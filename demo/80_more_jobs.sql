\echo
\echo '━━ More jobs on the same engine ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Videos made from an image, and from each other, take the thumbnails that they lack: one run settles'
\echo 'the whole chain. An existing value is never changed, and a private source keeps what it has.'
\echo
\echo '   SELECT * FROM import_dynamodb_items(lines, execute => true);   -- or sql/import_dynamodb.psql'
\echo '   SELECT * FROM backfill_i2v_thumbnails(execute => true);'
\echo

CREATE TABLE demo.steps AS SELECT * FROM create_media_tables();
CREATE TABLE demo.imported AS
SELECT i.* FROM (SELECT ARRAY[
  '{"Item": {"PK": {"S": "MEDIA#portrait"}, "SK": {"S": "METADATA"}, "type": {"S": "image"}, "thumbnailUrl": {"S": "/portrait_small.webp"}}}',
  '{"Item": {"PK": {"S": "MEDIA#dance"}, "SK": {"S": "METADATA"}, "type": {"S": "video"}, "isPublic": {"S": "true"}}}',
  '{"Item": {"PK": {"S": "MEDIA#encore"}, "SK": {"S": "METADATA"}, "type": {"S": "video"}}}',
  '{"Item": {"PK": {"S": "I2VJOB#dance"}, "SK": {"S": "METADATA"}, "mediaId": {"S": "portrait"}, "mode": {"S": "image-to-video"}}}',
  '{"Item": {"PK": {"S": "I2VJOB#job-2"}, "SK": {"S": "METADATA"}, "mediaId": {"S": "dance"}, "resultMediaId": {"S": "encore"}}}',
  '{"Item": {"PK": '] AS lines) export
CROSS JOIN LATERAL import_dynamodb_items(export.lines, execute => true) i;
SELECT media, jobs, failed, left(problems -> 0 ->> 'message', 40) AS problem, problems -> 0 ->> 'line' AS line FROM demo.imported;

SELECT media_id, outcome, source_media_id AS source, thumbnail_url FROM explain_i2v_thumbnails();
CREATE TABLE demo.thumbnails AS SELECT * FROM backfill_i2v_thumbnails(execute => true);
SELECT videos_scanned, updated, skipped, errors FROM demo.thumbnails;
\echo 'Scenes whose legacy columns name an S3 object get its struct and a reference, and their session the sums.'
\echo
\echo '   SELECT * FROM backfill_s3_assets(execute => true);'
\echo
CREATE TABLE demo.scene_steps AS SELECT * FROM create_scene_tables();
INSERT INTO video_sessions (id, project_id, status) VALUES ('trailer', 'spring', 'ready');
INSERT INTO scenes (id, session_id, index, status, s3_chunk_url)
VALUES ('opening', 'trailer', 0, 'ready', 'https://films.s3.eu-central-1.amazonaws.com/trailer/0.mp4?X-Amz-Signature=5f1d'),
       ('closing', 'trailer', 1, 'ready', 'https://cdn.example/trailer/1.mp4');
CREATE TABLE demo.scenes AS SELECT * FROM backfill_s3_assets(execute => true);
SELECT scenes_migrated, sessions_migrated, references_created, errors FROM demo.scenes;
SELECT id, video_asset ->> 's3Url' AS "video_asset's URL, without its signature", assets_status FROM scenes ORDER BY index;
SELECT id, asset_count, assets_status FROM video_sessions;

\t on
SELECT demo.assert(count(*) = 0, 'verified: no errors')
FROM (SELECT severity FROM verify_i2v_thumbnails() UNION ALL SELECT severity FROM verify_s3_assets()) f WHERE severity = 'error';
\t off
