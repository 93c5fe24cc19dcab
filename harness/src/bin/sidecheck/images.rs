//! `sidecheck images`

use anyhow::Context;
use clap::{Args, Subcommand};
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::images;
use sidecheck::display::say;
use sidecheck::patience;

/// The fixtures' images, for clusters elsewhere and for those without a network
#[derive(Args)]
pub struct Images {
    #[command(subcommand)]
    command: ImagesCommand,
}

#[derive(Subcommand)]
enum ImagesCommand {
    /// Print the images' names as nodes know them
    List,
    /// Build the images if necessary and print the path of the archive that holds them all
    Archive,
    /// Push the images below PREFIX (`registry.example/team`); run the suite there with SIDECHECK_IMAGE_PREFIX=PREFIX
    Push {
        /// What stands before the images' names
        prefix: String,
    },
}

impl Images {
    pub async fn execute(self) -> anyhow::Result<u8> {
        match self.command {
            ImagesCommand::List => {
                for name in images::names()? {
                    say(&images::address(&name));
                }
            }
            ImagesCommand::Archive => say(&images::archive().await?.display().to_string()),
            ImagesCommand::Push { prefix } => push(&prefix).await?,
        }
        Ok(crate::MET)
    }
}

async fn push(prefix: &str) -> anyhow::Result<()> {
    images::archive().await?;
    let engine = Engine::chosen()?;
    for name in images::names()? {
        let address = images::below(prefix, &name);
        engine::run(engine.command().args(["tag", &name, &address]), patience::TRANSFER).await?;
        let pushed = engine::run(engine.command().args(["push", &address]), patience::TRANSFER).await;
        // The name was needed for the push alone.
        engine::run(engine.command().args(["rmi", &address]), patience::TRANSFER).await?;
        pushed.with_context(|| format!("{address} cannot be pushed; log in with `{} login`", engine.program()))?;
        say(&address);
    }
    Ok(())
}
