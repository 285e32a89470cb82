CALL run_backfill('s3_assets', execute => true);
