SET max_parallel_workers_per_gather = 0;
SELECT count(asset_canonical_key('upload', 'uploads/2026/Recording_' || n || '.mp4')) FROM generate_series(1, 1000000) n;
