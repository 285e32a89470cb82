-- A million calls on one core; the form is the provider and the column.
SET max_parallel_workers_per_gather = 0;
SELECT count(asset_canonical_key(:'form', :"form", 'video')) FROM key_arguments;
