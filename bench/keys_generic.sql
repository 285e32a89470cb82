SET max_parallel_workers_per_gather = 0;
SELECT count(asset_canonical_key('generic', 'https://media.example/watch/' || n || '.mp4?quality=high', 'video')) FROM generate_series(1, 1000000) n;
