-- After an execution: what it wrote, as plain tables, for the physical limit. In the order of the ids.
\set ON_ERROR_STOP on
CREATE SCHEMA final;
CREATE TABLE final.assets AS SELECT * FROM assets ORDER BY id;
CREATE TABLE final.asset_usages AS SELECT * FROM asset_usages ORDER BY id;
CREATE TABLE final.lesson AS SELECT id, videos, documents FROM lesson ORDER BY id;
