-- The ledger: what runs did. Its rows are the database's own history, so pg_dump takes them along, sequences too.
-- The script of a trusted extension runs as the bootstrap superuser: all of it is given to the extension's owner.
-- No foreign keys: pg_restore -j fills the tables of an extension in any order. prune_backfill_runs() keeps them in step.

CREATE SEQUENCE @extschema@.backfill_runs_run_id_seq;
CREATE TABLE @extschema@.backfill_runs (
    run_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.backfill_runs_run_id_seq'),
    job text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('function', 'procedure')),
    state text NOT NULL CHECK (state IN ('running', 'paused', 'finished', 'failed', 'cancelled')),
    batch integer NOT NULL,
    options jsonb NOT NULL,
    -- Names as the job calls them, each with the schema-qualified one: object ids do not survive a restore.
    relations jsonb NOT NULL,
    phases text[] NOT NULL,
    -- Where each phase ends, so that it ends under live inserts.
    bounds text[] NOT NULL,
    counter_names text[] NOT NULL,
    rows_total bigint,
    -- Every session that worked on it kept what it changed: only then all of it can be taken back.
    changes_kept boolean NOT NULL DEFAULT true,
    run_by name NOT NULL,
    application_name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    error text,
    error_sqlstate text
);

-- A range is the organizations whose bucket (the first two bytes of the SHA-256 of the id's text) is in it. Cursor and
-- counters are written in the transaction that writes the rows.
CREATE TABLE @extschema@.backfill_ranges (
    run_id bigint NOT NULL,
    range_number integer NOT NULL,
    first_bucket integer NOT NULL,
    last_bucket integer NOT NULL,
    phase integer NOT NULL DEFAULT 0,
    cursor text,
    done boolean NOT NULL DEFAULT false,
    counters bigint[] NOT NULL,
    rows_done bigint NOT NULL DEFAULT 0,
    batches bigint NOT NULL DEFAULT 0,
    batch_size integer NOT NULL,
    -- Who works on it, or did last: alive is what the server says of these two.
    pid integer,
    backend_start timestamptz,
    throttle_reason text,
    throttle_value text,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (run_id, range_number)
) WITH (fillfactor = 50);

CREATE SEQUENCE @extschema@.backfill_requests_request_id_seq;
CREATE TABLE @extschema@.backfill_requests (
    request_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.backfill_requests_request_id_seq'),
    run_id bigint NOT NULL,
    request text NOT NULL CHECK (request IN ('pause', 'cancel', 'join', 'pace')),
    arguments jsonb NOT NULL DEFAULT '{}',
    requested_by name NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    handled_at timestamptz
);
CREATE INDEX backfill_requests_open ON @extschema@.backfill_requests (run_id) WHERE handled_at IS NULL;

-- A run NULL is a decision of a trigger.
CREATE SEQUENCE @extschema@.backfill_decisions_decision_id_seq;
CREATE TABLE @extschema@.backfill_decisions (
    decision_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.backfill_decisions_decision_id_seq'),
    run_id bigint,
    item_key text NOT NULL,
    slot text,
    "position" integer,
    outcome text NOT NULL,
    action text,
    reason text,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX backfill_decisions_run ON @extschema@.backfill_decisions (run_id, decision_id);

-- What a batch changed, and what was there before: one row for each kind of change of a batch, its values in arrays
-- that run side by side. Ids are in "uuids" where the column is a uuid, else in "ids". What "before" and "after" hold
-- is the action's.
CREATE SEQUENCE @extschema@.backfill_changes_change_id_seq;
CREATE TABLE @extschema@.backfill_changes (
    change_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.backfill_changes_change_id_seq'),
    run_id bigint NOT NULL,
    phase integer NOT NULL,
    action text NOT NULL,
    relation text NOT NULL,
    column_name text,
    ids text[],
    uuids uuid[],
    positions integer[],
    assets uuid[],
    before text[],
    after text[]
);
CREATE INDEX backfill_changes_run ON @extschema@.backfill_changes (run_id, action, change_id);
-- What is written with every batch is compressed four times as fast, to about the same size. Some servers were built without.
DO $$
BEGIN
    EXECUTE 'ALTER TABLE @extschema@.backfill_changes ALTER ids SET COMPRESSION lz4, ALTER uuids SET COMPRESSION lz4, '
        'ALTER positions SET COMPRESSION lz4, ALTER assets SET COMPRESSION lz4, ALTER before SET COMPRESSION lz4, ALTER after SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
    NULL;
END $$;

CREATE TABLE @extschema@.backfill_quarantine (
    run_id bigint NOT NULL,
    phase integer NOT NULL,
    item_key text NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    -- What the item adds to the run's counters as a failure.
    counters bigint[] NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    retry boolean NOT NULL DEFAULT false,
    quarantined_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (run_id, phase, item_key)
);

CREATE SEQUENCE @extschema@.backfill_waits_wait_id_seq;
CREATE TABLE @extschema@.backfill_waits (
    wait_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.backfill_waits_wait_id_seq'),
    run_id bigint NOT NULL,
    range_number integer,
    reason text NOT NULL CHECK (reason IN ('batch_pause', 'replica_lag', 'lock', 'other_run', 'phase')),
    value text,
    began_at timestamptz NOT NULL,
    milliseconds bigint NOT NULL
);
CREATE INDEX backfill_waits_run ON @extschema@.backfill_waits (run_id, wait_id);

ALTER TABLE @extschema@.backfill_runs OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_ranges OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_requests OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_decisions OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_changes OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_quarantine OWNER TO @extowner@;
ALTER TABLE @extschema@.backfill_waits OWNER TO @extowner@;
ALTER SEQUENCE @extschema@.backfill_runs_run_id_seq OWNER TO @extowner@;
ALTER SEQUENCE @extschema@.backfill_requests_request_id_seq OWNER TO @extowner@;
ALTER SEQUENCE @extschema@.backfill_decisions_decision_id_seq OWNER TO @extowner@;
ALTER SEQUENCE @extschema@.backfill_changes_change_id_seq OWNER TO @extowner@;
ALTER SEQUENCE @extschema@.backfill_waits_wait_id_seq OWNER TO @extowner@;

-- Whatever default privileges the database has, nobody but the owner gets at them.
DO $$
DECLARE
    grantee record;
BEGIN
    FOR grantee IN
        SELECT DISTINCT c.oid::pg_catalog.regclass AS relation, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS name
        FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE c.relnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
          AND c.relname OPERATOR(pg_catalog.~) '^backfill_(runs|ranges|requests|decisions|changes|quarantine|waits)(_[a-z]+_id_seq)?$'
          AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,S}'::pg_catalog."char"[])
          AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', grantee.kind, grantee.relation, grantee.name);
    END LOOP;
END $$;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_runs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_ranges', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_requests', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_decisions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_changes', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_waits', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_runs_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_requests_request_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_decisions_decision_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_changes_change_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.backfill_waits_wait_id_seq', '');
