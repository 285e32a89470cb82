SELECT updated, errors FROM backfill_i2v_thumbnails(execute => true);
