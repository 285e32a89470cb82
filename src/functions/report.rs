//! `backfill_report`: a run in words, for a terminal or a ticket.

use std::fmt::Write;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::postgres::spi::{self, Connection, Mode, Rows};

#[pg_extern(stable, parallel_restricted)]
fn backfill_report(run_id: Option<i64>) -> Result<String, ErrorReport> {
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Read)?;
        Ok(report(connection, &ledger, &run))
    })
}

fn report(connection: &Connection, ledger: &Ledger, run: &Run) -> String {
    let ask = |sql| ledger.run(connection, Mode::Read, sql, &[run.run_id.into()]);
    let mut text = String::new();
    let head = ask(
        "SELECT p.state, r.run_by::text, r.application_name, date_trunc('second', r.started_at)::text,
                date_trunc('second', r.finished_at)::text, r.batch::text, nullif(r.options, '{}')::text, p.rows_done::text, p.rows_total::text,
                p.rows_per_second::text, r.error_sqlstate, r.error, p.phase
         FROM ~backfill_runs r JOIN ~backfill_progress p USING (run_id) WHERE r.run_id = $1",
    );
    if head.is_empty() {
        return text;
    }
    let of = |column| head.text(0, column);
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    line("run", Some(format!("{} ({}, {})", run.run_id, run.job, run.mode)));
    line("state", of(0));
    line("phase", of(12));
    line("role", of(1));
    line("application", of(2));
    line("started", of(3));
    line("finished", of(4));
    line("batch", of(5));
    line("options", of(6));
    let rows = match (of(7), of(8)) {
        (Some(done), Some(total)) => Some(format!("{done} of about {total}")),
        (done, _) => done,
    };
    line("rows", rows);
    line("rows/s", of(9));
    line(
        "error",
        of(10)
            .zip(of(11))
            .map(|(state, message)| format!("{message} (SQLSTATE {state})")),
    );
    section(
        &mut text,
        "counters",
        &ask(
            "SELECT v.name, sum(v.value)::text FROM ~backfill_runs r JOIN ~backfill_ranges g USING (run_id)
             CROSS JOIN unnest(r.counter_names, g.counters) WITH ORDINALITY v(name, value, place)
             WHERE r.run_id = $1 GROUP BY v.place, v.name ORDER BY v.place",
        ),
    );
    section(
        &mut text,
        "logged decisions",
        &ask(
            "SELECT concat_ws(' ', outcome, action, reason), count(*)::text FROM ~backfill_decisions WHERE run_id = $1
             GROUP BY outcome, action, reason ORDER BY count(*) DESC, 1 LIMIT 50",
        ),
    );
    section(
        &mut text,
        "failures",
        &ask(
            "SELECT sqlstate, concat(count(*), ' (', (array_agg(item_key ORDER BY item_key))[1], ': ', left(min(message), 200), ')')
             FROM ~backfill_quarantine WHERE run_id = $1 GROUP BY sqlstate ORDER BY count(*) DESC, sqlstate LIMIT 20",
        ),
    );
    section(
        &mut text,
        "waits",
        &ask(
            "SELECT reason, concat(count(*), ', ', sum(milliseconds), ' ms') FROM ~backfill_waits WHERE run_id = $1
             GROUP BY reason ORDER BY reason",
        ),
    );
    text
}

/// Pairs of texts under a heading, where there are any.
fn section(text: &mut String, heading: &str, rows: &Rows) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{heading}");
    for row in 0..rows.len() {
        let name = rows.text(row, 0).unwrap_or_default();
        let value = rows.text(row, 1).unwrap_or_default();
        let _ = writeln!(text, "  {name:<36} {value}");
    }
}
