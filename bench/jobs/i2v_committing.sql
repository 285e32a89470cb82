CALL run_backfill('i2v_thumbnails', execute => true);
