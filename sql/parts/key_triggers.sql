-- Keys for the rows that an application writes. The triggers never make the application's statement fail; a cancel and
-- the application's own lock_timeout are its own, and are raised.

-- IS DISTINCT FROM cannot be qualified, and the application's search_path is not ours to trust.
CREATE FUNCTION @extschema@.key_is_out_of_date(stored text, own text) RETURNS boolean IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $body$
    SELECT CASE WHEN stored IS NULL THEN own IS NOT NULL WHEN own IS NULL THEN true ELSE stored OPERATOR(pg_catalog.<>) own END
$body$;

CREATE FUNCTION @extschema@.asset_keys_after_insert() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    assets pg_catalog.text := pg_catalog.format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    wanting pg_catalog.text := 'SELECT i.id, k.new_key FROM inserted i
        CROSS JOIN LATERAL (SELECT @extschema@.asset_key_of_row(i.provider::pg_catalog.text, i.storage_key::pg_catalog.text,
            i.source_url::pg_catalog.text, i.kind::pg_catalog.text) AS new_key) k
        WHERE @extschema@.key_is_out_of_date(i.canonical_key::pg_catalog.text, k.new_key)';
    wants record;
BEGIN
    IF @extschema@.engine_is_writing() THEN
        RETURN NULL;
    END IF;
    BEGIN
        EXECUTE pg_catalog.format('UPDATE %s a SET canonical_key = w.new_key FROM (%s) w WHERE a.id OPERATOR(pg_catalog.=) w.id', assets, wanting);
        RETURN NULL;
    EXCEPTION
        WHEN lock_not_available THEN RAISE;
        WHEN OTHERS THEN NULL; -- some row cannot have its key: row by row
    END;
    FOR wants IN EXECUTE wanting OPERATOR(pg_catalog.||) ' ORDER BY k.new_key, i.id' LOOP
        PERFORM @extschema@.set_asset_key(assets, wants.id, wants.new_key);
    END LOOP;
    RETURN NULL;
EXCEPTION
    WHEN lock_not_available THEN RAISE;
    WHEN OTHERS THEN RETURN NULL; -- a later run keys the rows
END
$body$;

-- A key that no longer fits goes at once, by the application's own statement: that needs no right on the key's column,
-- and nothing that fails later can leave the wrong key behind.
CREATE FUNCTION @extschema@.asset_key_before_update() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF @extschema@.key_is_out_of_date(NEW.canonical_key::pg_catalog.text, @extschema@.asset_key_of_row(NEW.provider::pg_catalog.text,
            NEW.storage_key::pg_catalog.text, NEW.source_url::pg_catalog.text, NEW.kind::pg_catalog.text)) THEN
        NEW.canonical_key := NULL;
    END IF;
    RETURN NEW;
END
$body$;

CREATE FUNCTION @extschema@.asset_key_after_update() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    new_key pg_catalog.text;
BEGIN
    IF @extschema@.engine_is_writing() THEN
        RETURN NULL;
    END IF;
    new_key := @extschema@.asset_key_of_row(NEW.provider::pg_catalog.text, NEW.storage_key::pg_catalog.text,
        NEW.source_url::pg_catalog.text, NEW.kind::pg_catalog.text);
    IF @extschema@.key_is_out_of_date(NEW.canonical_key::pg_catalog.text, new_key) THEN
        PERFORM @extschema@.set_asset_key(pg_catalog.format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME), NEW.id, new_key);
    END IF;
    RETURN NULL;
EXCEPTION
    WHEN lock_not_available THEN RAISE;
    WHEN OTHERS THEN RETURN NULL; -- a later run keys the row
END
$body$;

-- Sets the key of one asset; where another row has it, the key becomes NULL, never the old, wrong one.
CREATE FUNCTION @extschema@.set_asset_key(assets text, id uuid, new_key text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    BEGIN
        EXECUTE pg_catalog.format('UPDATE %s a SET canonical_key = $2 WHERE a.id OPERATOR(pg_catalog.=) $1', assets) USING id, new_key;
    EXCEPTION
        WHEN lock_not_available THEN RAISE;
        WHEN OTHERS THEN
            BEGIN
                EXECUTE pg_catalog.format('UPDATE %s a SET canonical_key = NULL WHERE a.id OPERATOR(pg_catalog.=) $1 AND a.canonical_key IS NOT NULL', assets) USING id;
            EXCEPTION
                WHEN lock_not_available THEN RAISE;
                WHEN OTHERS THEN NULL; -- a trigger or a missing right of the application's: a later run keys the row
            END;
    END;
END
$body$;
