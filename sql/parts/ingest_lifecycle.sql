-- The lifecycle of collection_assets. It runs BEFORE, so that its error with a HINT comes before that of a CHECK, and
-- AFTER, when no trigger of the user's can change the row any more.
CREATE FUNCTION @extschema@.collection_asset_lifecycle() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        PERFORM @extschema@.check_collection_asset(NEW.state::pg_catalog.text, NEW.approved_for_broadcast, NEW.is_deleted,
            NEW.content_hash, NEW.size, NEW.mtime, NEW.content_signature, NEW.enricher_checksum);
    ELSE
        PERFORM @extschema@.check_collection_asset(NEW.state::pg_catalog.text, NEW.approved_for_broadcast, NEW.is_deleted,
            NEW.content_hash, NEW.size, NEW.mtime, NEW.content_signature, NEW.enricher_checksum,
            OLD.state::pg_catalog.text, OLD.approved_for_broadcast, OLD.is_deleted,
            OLD.content_hash, OLD.size, OLD.mtime, OLD.content_signature, OLD.enricher_checksum);
    END IF;
    RETURN NEW;
END
$body$;
