-- One lesson in a thousand cannot be updated: a constraint that came later and does not hold for it.
UPDATE lesson SET title = 'refused' WHERE ('x' || substr(md5(id::text), 1, 7))::bit(28)::int % 1000 = 0;
VACUUM FULL lesson;
ANALYZE lesson;
ALTER TABLE lesson ADD CONSTRAINT lesson_not_refused CHECK (title <> 'refused') NOT VALID;
