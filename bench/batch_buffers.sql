-- A hundred batches in one session; for some of them, the blocks touched, with all statements inside.
CREATE FUNCTION pg_temp.buffers(batch int, cursor text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
  EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM backfill_lesson_assets(%s, true, after => %L, max_lessons => %1$s)',
                 batch, cursor) INTO plan;
  RETURN (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint;
END $$;

CREATE TEMPORARY TABLE batch AS
SELECT row_number() OVER (ORDER BY id) / :batch + 1 AS number, lag(id) OVER (ORDER BY id) AS behind, row_number() OVER (ORDER BY id) AS place FROM lesson;

CREATE TEMPORARY TABLE touched (number bigint, buffers bigint);
SELECT format('INSERT INTO touched SELECT %s, pg_temp.buffers(%s, %L)', (place - 1) / :batch + 1, :batch, behind)
FROM batch WHERE (place - 1) % :batch = 0 ORDER BY place \gexec

SELECT number, buffers FROM touched WHERE number IN (2, 10, 50, 100) ORDER BY number;
