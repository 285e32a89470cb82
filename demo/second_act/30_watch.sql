-- Waits until the run has got that far, half a minute at most.
CREATE PROCEDURE demo.wait_for(lessons bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOR tenth IN 1 .. 300 LOOP
    EXIT WHEN EXISTS (SELECT FROM backfill_progress WHERE workers > 0 AND rows_done >= lessons);
    ROLLBACK;
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;

\echo '   SELECT … FROM backfill_progress;'
\echo
CALL demo.wait_for(300);
SELECT run_id AS run, state, phase, rows_done AS done, rows_total AS total, percent, eta::interval(0), batch_size AS batch
FROM backfill_progress WHERE workers > 0;
CALL demo.wait_for(700);
\t on
SELECT run_id AS run, state, phase, rows_done AS done, rows_total AS total, percent, eta::interval(0), batch_size AS batch
FROM backfill_progress WHERE workers > 0;
CALL demo.wait_for(1100);
SELECT run_id AS run, state, phase, rows_done AS done, rows_total AS total, percent, eta::interval(0), batch_size AS batch
FROM backfill_progress WHERE workers > 0;
\t off
