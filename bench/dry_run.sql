SELECT assets_created, usages_created, errors FROM backfill_lesson_assets();
