SELECT * FROM backfill_lesson_assets(500, true, skip_settled => true);
