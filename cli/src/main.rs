//! `media-assets`: what a shell needs of media_assets beyond psql. It sends what only a client can see and shows what the
//! database answers; it decides nothing.

mod connection;
mod failure;
mod ingest;
mod jellyfin;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Media assets from a shell. The database is found as psql finds it: DATABASE_URL, else PGHOST, PGPORT, PGDATABASE,
/// PGUSER, PGPASSWORD, .pgpass, PGSSLMODE.
#[derive(Parser)]
#[command(name = "media-assets", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Ingest(ingest::Arguments),
    /// Bytes between the database, Jellyfin and Agent Zero.
    #[command(subcommand)]
    Jellyfin(jellyfin::Command),
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Ingest(arguments) => arguments.run(),
            Command::Jellyfin(command) => command.run(),
        }
    }

    /// Whether everything that is printed has to be JSON.
    fn wants_json(&self) -> bool {
        match self {
            Command::Ingest(arguments) => arguments.json,
            Command::Jellyfin(_) => false,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::of_arguments(&error),
    };
    let json = arguments.command.wants_json();
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
