CALL run_backfill('lesson_assets', 500, true);
