SELECT scenes_migrated, sessions_migrated, errors FROM backfill_s3_assets();
