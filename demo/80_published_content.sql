\echo
\echo '━━ 8. Published content gets its Jellyfin metadata ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'A row that was published long ago lacks its Jellyfin link. media-assets jellyfin fetch would ask'
\echo 'Jellyfin; here the answers are written by hand: one item, and one that Jellyfin no longer has.'
\echo

SET client_min_messages = warning;
CREATE TABLE studio_board (id bigint PRIMARY KEY, title text, namespace text, content_url text, status text, meta jsonb);
INSERT INTO studio_board VALUES
    (1, 'Northern lights', NULL, 's3://outputs/lights.mp4', 'published', '{"jellyfin_item_id": "a1", "slug": "lights"}'),
    (2, 'Lost film', NULL, 's3://outputs/lost.mp4', 'published', '{"jellyfin_item_id": "b2"}');
CREATE TABLE demo.made AS SELECT * FROM create_jellyfin_tables();
INSERT INTO jellyfin_items (item_id, doc, http_status) VALUES
    ('a1', '{"Id": "a1", "Name": "Northern lights", "RunTimeTicks": 1234000000, "ImageTags": {"Primary": "t1"}, "Path": "/srv/private/lights.mp4"}', 200),
    ('b2', NULL, 404);
RESET client_min_messages;

\echo '   SELECT * FROM backfill_jellyfin_metadata(execute => true, backfill_version => ''2025-10-14'','
\echo '                                            public_base => ''https://watch.example.org'');'
\echo

SELECT rows_scanned, enriched, events_queued, skipped_not_found, errors
FROM backfill_jellyfin_metadata(execute => true, backfill_version => '2025-10-14', public_base => 'https://watch.example.org');

\echo 'The event is in the outbox, in the transaction of the markers. The server''s path stays at home.'
\echo

\pset tuples_only on
SELECT jsonb_pretty(payload) FROM event_outbox;
\pset tuples_only off
SELECT row_id, reason, next_attempt_at FROM jellyfin_skips;

\t on
SELECT demo.assert(count(*) = 0, 'verified: no errors') FROM verify_jellyfin_metadata() WHERE severity = 'error';
SELECT demo.assert(bool_and(payload::text NOT LIKE '%private%'), 'no path of the server leaves') FROM event_outbox;
\t off
