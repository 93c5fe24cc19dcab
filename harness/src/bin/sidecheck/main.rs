//! `sidecheck`: decides whether a Kubernetes cluster honours what sidecars rely on.

mod clean;
mod cluster_options;
mod doctor;
mod down;
mod fixture;
mod images;
mod list;
mod nextest;
mod report;
mod run;
mod up;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sidecheck::display::{SafeWriter, display_safe, explained};
use tracing_subscriber::EnvFilter;

/// Everything was met.
const MET: u8 = 0;
/// The suite could not tell.
const ERROR: u8 = 2;
/// The command line was wrong.
const USAGE: u8 = 64;

/// Does a cluster honour what sidecars rely on?
///
/// Exit codes: 0 everything is met, 1 something is not met, 2 the suite could not tell, 64 usage error.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Down(down::Down),
    Clean(clean::Clean),
    Doctor(doctor::Doctor),
    Run(run::Run),
    Validate(Box<validate::Validate>),
    Report(report::ReportLast),
    List(list::List),
    Fixture(fixture::ShowFixture),
    Images(images::Images),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { MET });
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("SIDECHECK_LOG").unwrap_or_else(|_| EnvFilter::new("warn,kube=off,sidecheck=info")),
        )
        .with_writer(|| SafeWriter(std::io::stderr()))
        .with_ansi(false)
        .with_target(false)
        .with_level(false)
        .without_time()
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error.into());
            return ExitCode::from(ERROR);
        }
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Up(command) => command.execute().await,
            Command::Down(command) => command.execute().await,
            Command::Clean(command) => command.execute().await,
            Command::Doctor(command) => command.execute().await,
            Command::Run(command) => command.execute().await,
            Command::Validate(command) => command.execute().await,
            Command::Report(command) => command.execute().await,
            Command::List(command) => command.execute(),
            Command::Fixture(command) => command.execute(),
            Command::Images(command) => command.execute().await,
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(if error.is::<Usage>() { USAGE } else { ERROR })
        }
    }
}

fn complain(error: &anyhow::Error) {
    eprintln!("sidecheck: {}", display_safe(&explained(error)));
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);
