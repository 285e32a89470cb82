//! Who sees and steers which run, and with whose rights things are done: an extension owner who is no superuser, a role
//! with tables of its own, a member of it, a stranger.

use media_assets_tests::application::contents;
use media_assets_tests::runs::{interrupted, last_run, state};
use media_assets_tests::{each_server, Application, Database, Role, Server, Session};

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";
const TABLES: [&str; 7] = [
    "backfill_runs",
    "backfill_ranges",
    "backfill_requests",
    "backfill_decisions",
    "backfill_changes",
    "backfill_quarantine",
    "backfill_waits",
];
const SEQUENCES: [&str; 5] = [
    "backfill_runs_run_id_seq",
    "backfill_requests_request_id_seq",
    "backfill_decisions_decision_id_seq",
    "backfill_changes_change_id_seq",
    "backfill_waits_wait_id_seq",
];

/// A database of `owner`, who is no superuser and has installed the extension; `worker` may make tables in schema `work`.
struct Setting {
    // Roles go before the database: what they own is in it.
    stranger: Role,
    member: Role,
    worker: Role,
    owner: Role,
    database: Database,
    application: Application,
}

impl Setting {
    fn new(server: &Server) -> Self {
        let database = server.empty_database();
        let [owner, worker, member, stranger] = [(); 4].map(|()| server.role(&database));
        let mut maintenance = database.session();
        maintenance.run(&format!(
            "ALTER DATABASE {} OWNER TO {}; GRANT {} TO {}; CREATE SCHEMA work AUTHORIZATION {}",
            database.name, owner.name, worker.name, member.name, worker.name
        ));
        database.session_as(&owner).run("CREATE EXTENSION media_assets");
        let mut session = Self::open(&database, &worker);
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 20);
        Setting {
            stranger,
            member,
            worker,
            owner,
            database,
            application,
        }
    }

    fn open(database: &Database, role: &Role) -> Session {
        let mut session = database.session_as(role);
        session.run("SET media_assets.progress = off; SET search_path = work, public");
        session
    }

    fn session(&self, role: &Role) -> Session {
        Self::open(&self.database, role)
    }

    fn superuser(&self) -> Session {
        let mut session = self.database.session();
        session.run("SET media_assets.progress = off; SET search_path = work, public");
        session
    }
}

/// Every call that steers or shows a run.
fn calls(run_id: i64) -> Vec<String> {
    [
        "SELECT backfill_report({})",
        "SELECT pause_backfill({})",
        "SELECT cancel_backfill({})",
        "SELECT retry_quarantined({})",
        "SELECT set_backfill_pace({}, batch => 7)",
        "SELECT * FROM explain_undo({})",
        "SELECT * FROM undo_backfill({})",
        "SELECT * FROM undo_backfill({}, true)",
        "CALL resume_backfill({})",
        "CALL join_backfill({})",
        "CALL run_backfill('undo', execute => true, options => '{\"run_id\": {}}')",
        "CALL run_backfill('undo', options => '{\"run_id\": {}}')",
    ]
    .iter()
    .map(|call| call.replace("{}", &run_id.to_string()))
    .collect()
}

fn visible(session: &mut Session) -> Vec<String> {
    session
        .rows("SELECT run_id::text FROM backfill_progress ORDER BY run_id")
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

#[test]
fn the_owner_of_the_extension_owns_the_ledger_and_nobody_else_has_rights_on_it() {
    each_server(|server| {
        let setting = Setting::new(server);
        setting.session(&setting.worker).run(EXECUTE);
        let mut owner = setting.session(&setting.owner);
        for table in TABLES {
            owner.run(&format!("SELECT * FROM {table}"));
        }
        for sequence in SEQUENCES {
            owner.run(&format!("SELECT last_value FROM {sequence}"));
        }
        assert_eq!(owner.number("SELECT count(*) FROM backfill_runs"), 1);
        for role in [&setting.stranger, &setting.worker] {
            let mut session = setting.session(role);
            for table in TABLES {
                session.fails("42501", &format!("SELECT * FROM {table}"));
                session.fails("42501", &format!("INSERT INTO {table} DEFAULT VALUES"));
                session.fails("42501", &format!("DELETE FROM {table}"));
                session.fails("42501", &format!("BEGIN; LOCK TABLE {table}"));
            }
            for sequence in SEQUENCES {
                session.fails("42501", &format!("SELECT nextval('{sequence}')"));
                session.fails("42501", &format!("SELECT last_value FROM {sequence}"));
            }
            for (state, write) in [
                ("55000", "INSERT INTO backfill_progress (run_id) VALUES (1)"),
                ("55000", "DELETE FROM backfill_progress"),
            ] {
                session.fails(state, write);
            }
        }
    });
}

#[test]
fn open_default_privileges_do_not_open_the_ledger() {
    each_server(|server| {
        for by_superuser in [false, true] {
            let database = server.empty_database();
            let owner = server.role(&database);
            let stranger = server.role(&database);
            let mut maintenance = database.session();
            maintenance.run(&format!("ALTER DATABASE {} OWNER TO {}", database.name, owner.name));
            for of in ["CURRENT_USER".to_owned(), owner.name.clone()] {
                for to in ["PUBLIC", &stranger.name] {
                    maintenance.run(&format!(
                        "ALTER DEFAULT PRIVILEGES FOR ROLE {of} GRANT ALL ON TABLES TO {to};
                         ALTER DEFAULT PRIVILEGES FOR ROLE {of} GRANT ALL ON SEQUENCES TO {to}"
                    ));
                }
            }
            let mut installer = if by_superuser {
                database.session()
            } else {
                database.session_as(&owner)
            };
            installer.run("CREATE EXTENSION media_assets");
            for table in TABLES {
                for right in [
                    "SELECT",
                    "INSERT",
                    "UPDATE",
                    "DELETE",
                    "TRUNCATE",
                    "REFERENCES",
                    "TRIGGER",
                ] {
                    let has = format!("SELECT has_table_privilege('{}', '{table}', '{right}')", stranger.name);
                    assert!(
                        !maintenance.is_true(&has),
                        "{right} on {table}, installed by a superuser: {by_superuser}"
                    );
                }
            }
            for sequence in SEQUENCES {
                for right in ["SELECT", "USAGE", "UPDATE"] {
                    let has = format!(
                        "SELECT has_sequence_privilege('{}', '{sequence}', '{right}')",
                        stranger.name
                    );
                    assert!(!maintenance.is_true(&has), "{right} on {sequence}");
                }
            }
            let mut session = database.session_as(&stranger);
            session.fails("42501", "INSERT INTO backfill_changes (run_id, phase, action, relation) VALUES (1, 0, 'item_patched', 'lesson')");
            session.run("SELECT * FROM backfill_progress");
        }
    });
}

#[test]
fn each_role_sees_its_own_runs_and_a_stranger_none() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut worker = setting.session(&setting.worker);
        worker.run(EXECUTE);
        // a run of the owner's, on tables of its own
        let mut owner = setting.session(&setting.owner);
        owner.run("CREATE SCHEMA mine; SET search_path = mine, public");
        Application::create(&mut owner);
        owner.run(EXECUTE);
        assert_eq!(visible(&mut worker), ["1"]);
        assert_eq!(visible(&mut setting.session(&setting.member)), ["1"]);
        assert_eq!(visible(&mut owner), ["1", "2"]);
        assert_eq!(visible(&mut setting.superuser()), ["1", "2"]);
        let mut stranger = setting.session(&setting.stranger);
        assert!(visible(&mut stranger).is_empty());
        // nor does a function of the stranger's see more than the stranger does
        stranger.run(
            "CREATE FUNCTION pg_temp.leak(who name, job text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
             BEGIN RAISE NOTICE 'leaked % %', who, job; RETURN true; END $$",
        );
        stranger.take_notices();
        assert!(stranger
            .rows("SELECT * FROM backfill_progress WHERE pg_temp.leak(run_by, job)")
            .is_empty());
        assert!(stranger.take_notices().is_empty());
        for run_id in [1, 2] {
            for call in calls(run_id) {
                let error = stranger.fails_with_hint("42501", &call);
                assert!(
                    error.message().contains(&format!("run {run_id}")),
                    "{}",
                    error.message()
                );
            }
        }
        for call in calls(2) {
            worker.fails_with_hint("42501", &call);
        }
        assert_eq!(stranger.number("SELECT prune_backfill_runs('-1 day')"), 0);
        assert_eq!(visible(&mut owner), ["1", "2"]);
        assert_eq!(worker.number("SELECT prune_backfill_runs('-1 day')"), 1);
        assert_eq!(visible(&mut owner), ["2"]);
    });
}

#[test]
fn a_stranger_changes_nothing_of_a_run_that_waits() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut all = setting.superuser();
        let run_id = interrupted(&setting.database, Some(&setting.worker), &mut all_in_work(&setting), 8);
        let before = (
            contents(&mut all),
            all.rows("SELECT r::text, g::text FROM backfill_runs r JOIN backfill_ranges g USING (run_id)"),
        );
        let mut stranger = setting.session(&setting.stranger);
        for call in calls(run_id) {
            stranger.fails_with_hint("42501", &call);
        }
        let after = (
            contents(&mut all),
            all.rows("SELECT r::text, g::text FROM backfill_runs r JOIN backfill_ranges g USING (run_id)"),
        );
        assert_eq!(before, after);
        assert_eq!(all.number("SELECT count(*) FROM backfill_requests"), 0);
        // its own role may
        let mut worker = setting.session(&setting.worker);
        assert_eq!(worker.text(&format!("SELECT pause_backfill({run_id})")), "paused");
        worker.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(state(&mut worker, run_id), "finished");
    });
}

/// A superuser's session whose tables are those of schema `work`, and in which a role's runs find theirs.
fn all_in_work(setting: &Setting) -> Session {
    setting.superuser().run(&format!(
        "ALTER ROLE {} SET search_path = work, public",
        setting.worker.name
    ));
    setting.superuser().run(&format!(
        "ALTER DATABASE {} SET search_path = work, public",
        setting.database.name
    ));
    setting.superuser()
}

#[test]
fn a_member_of_the_role_steers_and_undoes_its_runs() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut worker = setting.session(&setting.worker);
        let before = contents(&mut worker);
        let run_id = interrupted(&setting.database, Some(&setting.worker), &mut all_in_work(&setting), 8);
        let mut member = setting.session(&setting.member);
        assert!(member
            .text(&format!("SELECT backfill_report({run_id})"))
            .contains("interrupted"));
        assert_eq!(member.text(&format!("SELECT pause_backfill({run_id})")), "paused");
        member.run(&format!("SELECT set_backfill_pace({run_id}, batch => 5)"));
        member.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(state(&mut member, run_id), "finished");
        member
            .counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
            .expect(&[("items_restored", 20), ("assets_removed", 20)]);
        assert_eq!(before, contents(&mut worker));
        // the undo is the member's own run, which the role does not see
        let undo_id = setting.superuser().number("SELECT max(run_id) FROM backfill_runs");
        assert_eq!(last_run(&mut worker), run_id);
        worker.fails_with_hint("42501", &format!("SELECT backfill_report({undo_id})"));
        assert_eq!(last_run(&mut member), undo_id);
    });
}

#[test]
fn the_rights_on_tables_are_the_callers_own() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut worker = setting.session(&setting.worker);
        let run_id = worker.counters(EXECUTE).get("run_id");
        let before = contents(&mut worker);
        // the owner of the extension may steer every run, and has no right on the tables of this one
        let mut owner = setting.session(&setting.owner);
        for call in [
            format!("SELECT * FROM undo_backfill({run_id})"),
            format!("SELECT * FROM undo_backfill({run_id}, true)"),
            format!("CALL run_backfill('undo', execute => true, options => '{{\"run_id\": {run_id}}}')"),
        ] {
            let outcome = owner.try_rows(&call);
            let error = outcome.expect_err("the owner has no right on the tables");
            assert!(
                ["42501", "42P01"].contains(&error.code().code()),
                "{}",
                media_assets_tests::describe(&error)
            );
        }
        assert_eq!(before, contents(&mut worker));
        assert_eq!(owner.number("SELECT count(*) FROM backfill_runs"), 1);
        worker.run(&format!(
            "GRANT USAGE ON SCHEMA work TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA work TO {0}",
            setting.owner.name
        ));
        owner
            .counters(&format!("SELECT * FROM undo_backfill({run_id})"))
            .expect(&[("assets_removed", 20)]);
        owner.fails_with_hint("42501", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
        assert_eq!(before, contents(&mut worker));
    });
}

/// Code of the users' own at every place where a run may come by: each notes who ran it and tries what the owner may.
fn traps(schema: &str) -> String {
    let hook = |table: &str, when: &str| {
        format!(
            "CREATE TRIGGER {}_{table} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION trap();",
            when.split(' ').next().unwrap_or("x")
        )
    };
    let mut sql = format!(
        "CREATE TABLE ran (who name, by text, ledger text);
         GRANT INSERT ON ran TO PUBLIC;
         CREATE FUNCTION note(by text) RETURNS boolean LANGUAGE plpgsql AS $$
         DECLARE ledger text := 'read';
         BEGIN
             BEGIN PERFORM count(*) FROM public.backfill_runs; EXCEPTION WHEN insufficient_privilege THEN ledger := 'refused'; END;
             INSERT INTO {schema}.ran VALUES (current_user, by, ledger);
             RETURN true;
         END $$;
         CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM {schema}.note(TG_TABLE_NAME || ' ' || TG_WHEN || ' ' || TG_OP);
             RETURN COALESCE(NEW, OLD);
         END $$;
         ALTER TABLE assets ADD CHECK ({schema}.note('check ' || status));
         CREATE FUNCTION indexed(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM {schema}.note('index'); RETURN t; END $$;
         CREATE INDEX ON asset_usages ({schema}.indexed(target_id));
         CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR DELETE ON assets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap();"
    );
    for table in ["lesson", "assets", "asset_usages"] {
        sql += &hook(table, "BEFORE INSERT OR UPDATE OR DELETE");
        sql += &hook(table, "AFTER INSERT OR UPDATE OR DELETE");
    }
    sql
}

#[test]
fn code_of_users_never_runs_as_the_owner_of_the_extension() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut worker = setting.session(&setting.worker);
        worker.run(&traps("work"));
        let run_id = worker.counters(EXECUTE).get("run_id");
        worker.run(&format!("SELECT * FROM undo_backfill({run_id}, true)"));
        worker.run("CALL run_backfill('lesson_assets', 3, true)");
        let run_id = last_run(&mut worker);
        worker.run(&format!(
            "CALL run_backfill('undo', 3, true, '{{\"run_id\": {run_id}}}')"
        ));
        setting.application.add_asset(&mut worker, 1, 1, "x");
        worker.run("UPDATE assets SET canonical_key = NULL");
        worker.run("SELECT * FROM backfill_asset_keys(execute => true, refresh => true)");
        let ran = worker.rows("SELECT DISTINCT who, ledger FROM ran");
        assert_eq!(ran, [[Some(setting.worker.name.clone()), Some("refused".into())]]);
        let places = worker.rows("SELECT DISTINCT by FROM ran ORDER BY 1");
        assert!(places.len() >= 12, "the traps were met: {places:?}");
    });
}

#[test]
fn a_definers_function_runs_jobs_as_its_owner() {
    each_server(|server| {
        let setting = Setting::new(server);
        let mut worker = setting.session(&setting.worker);
        worker.run(&format!(
            "CREATE FUNCTION work.nightly() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = work, public
                 AS 'SELECT assets_created FROM public.backfill_lesson_assets(execute => true)';
             GRANT USAGE ON SCHEMA work TO {}",
            setting.stranger.name
        ));
        let mut stranger = setting.session(&setting.stranger);
        assert_eq!(stranger.number("SELECT work.nightly()"), 20);
        assert!(visible(&mut stranger).is_empty());
        assert_eq!(worker.text("SELECT run_by FROM backfill_progress"), setting.worker.name);
    });
}
