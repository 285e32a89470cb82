SET max_parallel_workers_per_gather = 0;
SELECT count(asset_canonical_key('youtube', 'https://www.youtube.com/watch?v=abcd' || 1000000 + n, 'video')) FROM generate_series(1, 1000000) n;
