//! How a run is divided between sessions, and what holds for all of them together.

use media_assets_tests::long::{
    assert_same_traces, await_rows, await_run, counter, join, last_run, progress, run_lessons, state, traces,
    Background,
};
use media_assets_tests::runs::{close_gate, open_gate};
use media_assets_tests::school::School;
use media_assets_tests::{each_server, Application, Session};

const SCHOOL: School = School {
    organizations: 12,
    lessons: 600,
};
/// Slow enough for all sessions to be met at work.
const SLOW: &str = "SET media_assets.batch_pause = '12ms'; SET media_assets.log_decisions = 'all'";
const TRUNCATE: &str = "TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits";

/// Lessons of so many organizations, in turns.
fn lessons_of(session: &mut Session, organizations: u32, lessons: u32) {
    Application::create(session);
    session.run(&format!(
        "TRUNCATE \"group\", course, lesson;
         INSERT INTO \"group\" SELECT g, md5('organization ' || g)::uuid FROM generate_series(1, {organizations}) g;
         INSERT INTO course SELECT g, g FROM generate_series(1, {organizations}) g;
         INSERT INTO lesson (id, course_id, videos)
         SELECT lpad(to_hex(n), 32, '0')::uuid, n % {organizations} + 1, jsonb_build_array(jsonb_build_object('type', 'upload', 'key', n || '.mp4'))
         FROM generate_series(1, {lessons}) n"
    ));
}

/// Rows done in each range, in their order.
fn shares(session: &mut Session, run_id: i64) -> Vec<i64> {
    session
        .rows(&format!(
            "SELECT rows_done FROM backfill_ranges WHERE run_id = {run_id} ORDER BY range_number"
        ))
        .iter()
        .map(|row| row[0].as_deref().and_then(|rows| rows.parse().ok()).expect("a number"))
        .collect()
}

/// Makes sessions that divide a range wait until the gate is opened.
fn close_gate_of_ranges(session: &mut Session) {
    session.run(
        "CREATE TABLE range_gate (opened boolean); GRANT SELECT ON range_gate TO PUBLIC;
         CREATE FUNCTION wait_at_range_gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             WHILE NOT EXISTS (SELECT FROM public.range_gate) LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP;
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait_at_range_gate BEFORE INSERT ON backfill_ranges FOR EACH ROW EXECUTE FUNCTION wait_at_range_gate()",
    );
}

fn sleepers(session: &mut Session, number: i64) {
    session.wait_until(&format!(
        "SELECT count(*) = {number} FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    ));
}

#[test]
fn a_part_that_is_given_away_has_half_of_the_organizations_that_there_are() {
    each_server(|server| {
        for (organizations, sessions) in [(2, 2), (3, 2), (4, 4)] {
            let database = server.database();
            let mut session = database.session();
            lessons_of(&mut session, organizations, 120);
            // Nobody has done anything when all have joined: the first range stands at its gate.
            let first = session.text("SELECT id FROM lesson ORDER BY id LIMIT 1");
            close_gate(&mut session, &first);
            let slow = "SET media_assets.batch_pause = '5ms'";
            let run = Background::start(&database, slow, &run_lessons(1, "{}"));
            let run_id = await_run(&mut session);
            sleepers(&mut session, 1);
            let others: Vec<_> = (1..sessions)
                .map(|_| Background::start(&database, slow, &join(run_id)))
                .collect();
            session.wait_until(&format!(
                "SELECT count(*) > 0 FROM backfill_requests WHERE run_id = {run_id} AND request = 'join'"
            ));
            open_gate(&mut session);
            run.finish();
            for other in others {
                other.finish();
            }
            let shares = shares(&mut session, run_id);
            let which = format!("{organizations} organizations, {sessions} sessions: {shares:?}");
            assert!(shares.iter().all(|rows| *rows > 0), "{which}: an empty part");
            assert_eq!(shares.iter().sum::<i64>(), 120, "{which}");
            assert_eq!(
                shares.len() as u32,
                organizations,
                "{which}: an organization is not divided"
            );
            if organizations == 2 {
                // But for the lessons before the division, of which there are few.
                assert!(shares.iter().all(|rows| (50..=70).contains(rows)), "{which}");
            }
            assert_eq!(counter(&mut session, run_id, "assets_created"), 120);
        }
    });
}

#[test]
fn one_organization_alone_is_not_divided() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        lessons_of(&mut session, 1, 60);
        let run = Background::start(
            &database,
            "SET media_assets.batch_pause = '10ms'",
            &run_lessons(1, "{}"),
        );
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 2);
        let other = Background::start(&database, "", &join(run_id));
        run.finish();
        other.finish();
        assert_eq!(shares(&mut session, run_id), [60]);
    });
}

#[test]
fn sessions_that_divide_their_ranges_at_the_same_moment_make_different_ones() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        session.run("SET media_assets.log_decisions = 'all'");
        session.run(&run_lessons(5, "{}"));
        let run_id = last_run(&mut session).expect("a run");
        let expected = traces(&mut session, run_id);
        SCHOOL.fill(&mut session);
        session.run(TRUNCATE);

        // So slow that neither comes to its end before both stand at the gate.
        let slow = SLOW.replace("12ms", "50ms");
        let mut sessions = vec![Background::start(&database, &slow, &run_lessons(3, "{}"))];
        let run_id = await_run(&mut session);
        sessions.push(Background::start(&database, &slow, &join(run_id)));
        session.wait_until(&format!(
            "SELECT workers = 2 FROM backfill_progress WHERE run_id = {run_id}"
        ));
        close_gate_of_ranges(&mut session);
        // A request that one session has taken is not there for the other, who gets one of its own.
        let ask = format!(
            "INSERT INTO backfill_requests (run_id, request, requested_by) VALUES ({run_id}, 'join', current_user)"
        );
        session.run(&ask);
        sleepers(&mut session, 1);
        session.run(&ask);
        sleepers(&mut session, 2);
        session.run(&format!(
            "SELECT set_backfill_pace({run_id}, batch_pause => '5 milliseconds')"
        ));
        session.run("INSERT INTO range_gate VALUES (true)");
        sessions.extend((0..2).map(|_| Background::start(&database, SLOW, &join(run_id))));
        for background in sessions {
            background.finish();
        }
        assert_same_traces(&expected, &traces(&mut session, run_id), "four parts");
        assert!(session.is_true(&format!(
            "SELECT count(*) >= 4 AND bool_and(range_number = first_bucket) AND sum(last_bucket - first_bucket + 1) = 65536
                AND min(first_bucket) = 0 AND max(last_bucket) = 65535 AND bool_and(follows)
             FROM (SELECT *, first_bucket = coalesce(lag(last_bucket) OVER (ORDER BY first_bucket) + 1, 0) AS follows
                   FROM backfill_ranges WHERE run_id = {run_id}) r"
        )));
    });
}

#[test]
fn all_sessions_of_a_run_together_stop_at_so_many_failures() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'lesson % is refused', NEW.id USING ERRCODE = '23514'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW WHEN (NEW.id::text ~ '[37b]$') EXECUTE FUNCTION refuse()",
        );
        let settings = format!("{SLOW}; SET media_assets.max_failures = 60; SET client_min_messages = error");
        let first = Background::start(&database, &settings, &run_lessons(5, "{}"));
        let run_id = await_run(&mut session);
        let second = Background::start(&database, &settings, &join(run_id));
        let outcomes = [first.join().1, second.join().1];
        let errors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(!errors.is_empty(), "more than 60 lessons are refused");
        for error in errors {
            assert_eq!(error.as_ref().map(|error| error.code().code()), Some("53400"));
        }
        assert_eq!(state(&mut session, run_id), "failed");
        let kept = session.number("SELECT count(*) FROM backfill_quarantine");
        assert!((50..=60).contains(&kept), "{kept} in quarantine");
        assert_eq!(counter(&mut session, run_id, "errors"), kept);
        let met = session.rows(&format!(
            "SELECT g.counters[array_position(r.counter_names, 'errors')] FROM backfill_ranges g JOIN backfill_runs r USING (run_id)
             WHERE run_id = {run_id} ORDER BY range_number"
        ));
        let met: Vec<i64> = met
            .iter()
            .map(|row| {
                row[0]
                    .as_deref()
                    .and_then(|errors| errors.parse().ok())
                    .expect("a number")
            })
            .collect();
        assert!(
            met.iter().filter(|errors| **errors >= 5).count() >= 2,
            "both have met some: {met:?}"
        );
    });
}

#[test]
fn all_sessions_of_a_run_together_log_so_many_decisions() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let settings = format!("{SLOW}; SET media_assets.log_decisions_limit = 200");
        let mut sessions = vec![Background::start(&database, &settings, &run_lessons(5, "{}"))];
        let run_id = await_run(&mut session);
        sessions.extend((0..2).map(|_| Background::start(&database, &settings, &join(run_id))));
        for background in sessions {
            background.finish();
        }
        assert!(shares(&mut session, run_id).len() >= 3);
        assert_eq!(
            session.number(&format!(
                "SELECT count(*) FROM backfill_decisions WHERE run_id = {run_id}"
            )),
            200
        );
        assert_eq!(progress(&mut session, run_id, "rows_done").as_deref(), Some("600"));
    });
}

#[test]
fn a_run_that_lives_is_never_shown_as_interrupted() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        for sessions in [1, 3] {
            SCHOOL.fill(&mut session);
            session.run(TRUNCATE);
            let settings = "SET media_assets.batch_pause = '1ms'";
            let mut runs = vec![Background::start(&database, settings, &run_lessons(5, "{}"))];
            let run_id = await_run(&mut session);
            runs.extend((1..sessions).map(|_| Background::start(&database, settings, &join(run_id))));
            let mut looks = 0;
            loop {
                let now = state(&mut session, run_id);
                assert!(
                    ["running", "throttled", "finished"].contains(&now.as_str()),
                    "{now} after {looks} looks"
                );
                looks += 1;
                if now == "finished" {
                    break;
                }
            }
            assert!(looks > 20, "{looks} looks");
            assert_eq!(progress(&mut session, run_id, "workers").as_deref(), Some("0"));
            // Who still looks whether there is something to do keeps nobody from taking the run back.
            session.run(&format!("SELECT * FROM undo_backfill({run_id})"));
            for run in runs {
                run.finish();
            }
        }
    });
}
