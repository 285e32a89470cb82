-- What \df+ says of each function. The reference in docs/ has the whole of it.

-- identity
COMMENT ON FUNCTION @extschema@.asset_canonical_key(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'The canonical key of a locator (storage key, link, path or id) of a provider; NULL where it has none. At most 1,000 bytes; the same input gives the same key for ever.';
COMMENT ON FUNCTION @extschema@.asset_key_of_row(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'The canonical key of a row of assets, from its provider, storage_key, source_url and kind; NULL where they give none.';
COMMENT ON FUNCTION @extschema@.asset_key_version() IS
    'The version of the rules by which keys are made.';
COMMENT ON FUNCTION @extschema@.canonical_url(pg_catalog.text) IS
    'A link in its normal form, without fragment, userinfo and signature; NULL for text that is no link and for schemes that carry no media.';
COMMENT ON FUNCTION @extschema@.parse_media_link(pg_catalog.text) IS
    'What a link points to: provider, kind and id of the medium, the canonical URL, and facets of this use (start, end, list …). Always one row.';
COMMENT ON FUNCTION @extschema@.infer_mime_type(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'The MIME type that a declared value, a file name or a link shows, the first that answers; NULL when none does.';
COMMENT ON FUNCTION @extschema@.infer_asset_kind(pg_catalog.text, pg_catalog.text) IS
    'video, audio, image or document by MIME type; the fallback where the type says nothing.';
COMMENT ON FUNCTION @extschema@.normalize_path(pg_catalog.text, pg_catalog.bool) IS
    'A stable text identity of a file path (POSIX, Windows, UNC, file: URI), made without touching a disk; the empty path gives NULL.';
COMMENT ON FUNCTION @extschema@.enricher_checksum(pg_catalog.jsonb) IS
    'SHA-256 (hex) of a set of {"enricher_id", "priority"}, whatever their order; NULL when there are none.';
COMMENT ON FUNCTION @extschema@.content_signature(pg_catalog.text, pg_catalog.int8, pg_catalog.timestamptz) IS
    'What shows whether a file''s content changed: sha256:<hex>, else stat:<bytes>:<microseconds>, else size:<bytes>, else NULL.';

-- tables
COMMENT ON FUNCTION @extschema@.create_asset_tables() IS
    'Makes assets and asset_usages in the current schema where they are missing, with constraints, indexes and key triggers. Alters nothing that exists.';
COMMENT ON FUNCTION @extschema@.prepare_asset_tables(pg_catalog.bool) IS
    'Brings existing assets and asset_usages up to what an execution needs; without execute it only shows the DDL.';
COMMENT ON FUNCTION @extschema@.check_asset_tables() IS
    'All that is missing or may stand in the way, with its SQLSTATE and the DDL against it. Never raises because of it; no rows = ready.';
COMMENT ON FUNCTION @extschema@.dedupe_asset_usages(pg_catalog.bool) IS
    'Groups of equal usages; with execute it deletes all but one of each.';
COMMENT ON FUNCTION @extschema@.backfill_asset_keys(pg_catalog.int4, pg_catalog.bool, pg_catalog.bool) IS
    'Gives canonical keys to assets without one, the oldest of equal rows first; with refresh also repairs keys that no longer fit their row. Dry by default.';

-- lessons
COMMENT ON FUNCTION @extschema@.normalize_lesson_media(pg_catalog.text, pg_catalog.jsonb) IS
    'What one item of lesson.videos (lesson_video) or lesson.documents (lesson_document) is: eligible with the fields of its asset, or skipped with a reason.';
COMMENT ON FUNCTION @extschema@.backfill_lesson_assets(pg_catalog.int4, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.bool) IS
    'Makes or reuses an asset and a usage for each media item of the lessons, and writes assetId into the item. Dry by default; the counters of the dry run are those of the execution.';
COMMENT ON FUNCTION @extschema@.explain_lesson_assets(pg_catalog.text, pg_catalog.text, pg_catalog.int8) IS
    'The decisions of the dry run, one row for each media item: outcome, reason, action, and the normalised fields.';
COMMENT ON FUNCTION @extschema@.verify_lesson_assets(pg_catalog.text) IS
    'What does not fit between lessons, assets and usages, asked from the tables anew. No row of severity error = verified.';

-- lesson triggers
COMMENT ON FUNCTION @extschema@.attach_lesson_triggers(pg_catalog.bool) IS
    'Puts the triggers on lesson that give live writes their assets, assetIds and usages, by the rules of the backfill. Without execute it only shows the DDL.';
COMMENT ON FUNCTION @extschema@.detach_lesson_triggers(pg_catalog.bool) IS
    'Drops the triggers that attach_lesson_triggers put on lesson. Without execute it only shows the DDL.';
COMMENT ON FUNCTION @extschema@.lesson_before_row() IS
    'Trigger function of media_assets_lesson_row: finds or makes the assets of a lesson that is written and puts assetId into its items. Never fails the statement because of odd media.';
COMMENT ON FUNCTION @extschema@.lesson_after_statement() IS
    'Trigger function of media_assets_lesson_insert, _update, _delete and _truncate: makes assets and usages of the lessons written equal to their items. Never fails the statement because of odd media.';

-- used by the key triggers
COMMENT ON FUNCTION @extschema@.asset_keys_after_insert() IS
    'Trigger function of media_assets_key_insert: keys the rows of a statement that inserts assets. Never fails the statement.';
COMMENT ON FUNCTION @extschema@.asset_key_before_update() IS
    'Trigger function of media_assets_key_clear: takes a key away that no longer fits the provider, storage_key, source_url and kind of its row.';
COMMENT ON FUNCTION @extschema@.asset_key_after_update() IS
    'Trigger function of media_assets_key_update: keys an asset whose provider, storage_key, source_url or kind was updated. Never fails the statement.';
COMMENT ON FUNCTION @extschema@.set_asset_key(pg_catalog.text, pg_catalog.uuid, pg_catalog.text) IS
    'Used by the key triggers, with the rights of the caller: sets the key of one asset, NULL where another row has it.';
COMMENT ON FUNCTION @extschema@.key_is_out_of_date(pg_catalog.text, pg_catalog.text) IS
    'Used by the key triggers: whether a stored key differs from the one that its row''s fields give.';
COMMENT ON FUNCTION @extschema@.engine_is_writing() IS
    'Used by the key triggers: whether the extension itself is writing, so that its rows need no trigger. Nothing in SQL can set it.';

-- the ledger
COMMENT ON TABLE @extschema@.backfill_runs IS
    'Ledger: one row for each executing run; written when it starts and when it ends. Dry runs have none.';
COMMENT ON TABLE @extschema@.backfill_ranges IS
    'Ledger: the organizations that one worker goes through, with cursor and counters, written with each batch.';
COMMENT ON TABLE @extschema@.backfill_requests IS
    'Ledger: what was asked of a run while it was running; a worker obeys at its next batch.';
COMMENT ON TABLE @extschema@.backfill_decisions IS
    'Ledger: decisions on single items, as media_assets.log_decisions says, at most media_assets.log_decisions_limit for each run. Run NULL: a trigger''s.';
COMMENT ON TABLE @extschema@.backfill_changes IS
    'Ledger: what each batch changed and what was there before, in arrays; undo_backfill reads it.';
COMMENT ON TABLE @extschema@.backfill_quarantine IS
    'Ledger: items that could not be written, with SQLSTATE and message.';
COMMENT ON TABLE @extschema@.backfill_waits IS
    'Ledger: when a run waited, why, for what value, and how long.';
COMMENT ON SEQUENCE @extschema@.backfill_runs_run_id_seq IS 'Gives run_id.';
COMMENT ON SEQUENCE @extschema@.backfill_requests_request_id_seq IS 'Gives request_id.';
COMMENT ON SEQUENCE @extschema@.backfill_decisions_decision_id_seq IS 'Gives decision_id.';
COMMENT ON SEQUENCE @extschema@.backfill_changes_change_id_seq IS 'Gives change_id.';
COMMENT ON SEQUENCE @extschema@.backfill_waits_wait_id_seq IS 'Gives wait_id.';
COMMENT ON VIEW @extschema@.backfill_progress IS
    'Runs as they stand: state, phase, rows done and to come, rate, time left, worker, throttle, quarantine. Each role sees its own runs and those of roles it is a member of.';

-- long runs
COMMENT ON PROCEDURE @extschema@.run_backfill(pg_catalog.text, pg_catalog.int4, pg_catalog.bool, pg_catalog.jsonb, pg_catalog.int8) IS
    'Runs a job and commits after every batch, so that it can be watched, paused, killed and resumed. Dry by default: then it stores nothing and says the counters as INFO.';
COMMENT ON PROCEDURE @extschema@.resume_backfill(pg_catalog.int8) IS
    'Goes on with a run that was paused, failed or interrupted, from its last batch.';
COMMENT ON PROCEDURE @extschema@.join_backfill(pg_catalog.int8) IS
    'Takes a part of the organizations of a run that another session works on.';
COMMENT ON FUNCTION @extschema@.pause_backfill(pg_catalog.int8) IS
    'Asks the sessions of a run to stop at their next batch; resume_backfill goes on. Gives "requested", or "paused" when no session works on it.';
COMMENT ON FUNCTION @extschema@.cancel_backfill(pg_catalog.int8) IS
    'Asks the sessions of a run to stop for good at their next batch. What is done stays until undo_backfill.';
COMMENT ON FUNCTION @extschema@.retry_quarantined(pg_catalog.int8) IS
    'Marks the failed items of a run, so that resume_backfill tries them again. Gives their number.';
COMMENT ON FUNCTION @extschema@.set_backfill_pace(pg_catalog.int8, pg_catalog.int4, pg_catalog.interval, pg_catalog.interval, pg_catalog.interval) IS
    'Changes batch size, pause, time per batch and allowed replica lag of a run while it goes; NULL leaves one as it is.';
COMMENT ON FUNCTION @extschema@.prune_backfill_runs(pg_catalog.interval) IS
    'Deletes what the ledger has of runs that ended longer ago than that. They can no longer be undone. Gives their number.';
COMMENT ON FUNCTION @extschema@.backfill_report(pg_catalog.int8) IS
    'A run in words: state, counters, reasons, failures with samples, waits.';
COMMENT ON FUNCTION @extschema@.undo_backfill(pg_catalog.int8, pg_catalog.bool) IS
    'Takes a run back value by value; what somebody changed since is left alone and counted as a conflict. Dry by default.';
COMMENT ON FUNCTION @extschema@.explain_undo(pg_catalog.int8) IS
    'What undo_backfill would do with each value that the run wrote, and why it would leave one alone.';
COMMENT ON FUNCTION @extschema@.backfill_worker_is_alive(pg_catalog.int4, pg_catalog.timestamptz) IS
    'Used by the view backfill_progress: whether the server has that backend now.';

-- Jellyfin metadata
COMMENT ON FUNCTION @extschema@.create_jellyfin_tables() IS
    'Makes jellyfin_items, jellyfin_skips and event_outbox in the current schema where they are missing. Alters nothing that exists.';
COMMENT ON FUNCTION @extschema@.resolve_jellyfin_item(pg_catalog.text, pg_catalog.date, pg_catalog.jsonb) IS
    'The one item of that name (after NFC and full case folding) and UTC date, else the reason: not_found or ambiguous. Never the first of several.';
COMMENT ON FUNCTION @extschema@.content_published_payload(pg_catalog.jsonb, pg_catalog.jsonb, pg_catalog.text) IS
    'The event content.published.v1 of a row of studio_board and its Jellyfin item, without nulls and without server paths; NULL when no valid one is possible.';
COMMENT ON FUNCTION @extschema@.content_published_event_id(pg_catalog.int8, pg_catalog.text) IS
    'The id of the event of a row and a backfill version (UUIDv5): the same whenever it is made.';
COMMENT ON FUNCTION @extschema@.jellyfin_search_key(pg_catalog.text, pg_catalog.text) IS
    'Under what a search by name and date is remembered in jellyfin_items; an index on it finds the items of that name and date.';
COMMENT ON FUNCTION @extschema@.jellyfin_lookup(pg_catalog.jsonb) IS
    'How the item of a row of studio_board is found: its id, or the search by name and date.';
COMMENT ON FUNCTION @extschema@.jellyfin_candidates() IS
    'Published rows without Jellyfin link, with the item id or the search, and what Jellyfin has yet to be asked. Those that are not to be found are left out.';
COMMENT ON FUNCTION @extschema@.backfill_jellyfin_metadata(pg_catalog.int4, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8) IS
    'Gives published rows the Jellyfin fields they lack and queues their events, together. Dry by default; the counters of the dry run are those of the execution.';
COMMENT ON FUNCTION @extschema@.explain_jellyfin_metadata(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8) IS
    'The decisions of the dry run, one row for each candidate: outcome, reason, the patch of meta, the event with its payload.';
COMMENT ON FUNCTION @extschema@.verify_jellyfin_metadata() IS
    'What does not fit between studio_board, jellyfin_items and event_outbox, asked from the tables anew. No row of severity error = verified.';
COMMENT ON FUNCTION @extschema@.reopen_jellyfin_skips(pg_catalog.text, pg_catalog.int8) IS
    'Forgets skips of a reason (NULL: any), of one row or of all, and what Jellyfin said it does not have, so that both are looked at again. Gives how many.';
