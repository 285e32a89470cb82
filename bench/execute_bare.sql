SET media_assets.log_changes = off;
SET media_assets.log_decisions = none;
SELECT * FROM backfill_lesson_assets(500, true);
