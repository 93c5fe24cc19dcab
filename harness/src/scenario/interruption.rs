//! What ends a run before its checks are decided.

use anyhow::anyhow;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::signal::unix::{SignalKind, signal};

use crate::patience;
use crate::pod::Scene;
use crate::report::records::RunFolder;

/// That somebody, or `sidecheck run` after its time limit, asks this process to end: once that has happened, it stays so.
#[derive(Clone)]
pub(super) struct Interruption(Shared<BoxFuture<'static, String>>);

impl Interruption {
    /// Listens from now on. What `sidecheck run` has written into the folder of the run says why.
    pub(super) fn listen(folder: &RunFolder) -> Self {
        let signals = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
        let folder = folder.clone();
        let comes = async move {
            let (mut interrupt, mut terminate) = match signals {
                Ok(signals) => signals,
                Err(error) => return format!("signals cannot be awaited: {error}"),
            };
            tokio::select! {
                _ = interrupt.recv() => "interrupted".to_owned(),
                _ = terminate.recv() => folder.ended().unwrap_or_else(|| "interrupted by SIGTERM".to_owned()),
            }
        };
        Self(comes.boxed().shared())
    }

    /// Returns as soon as it has come. Says why.
    pub(super) async fn comes(&self) -> String {
        self.0.clone().await
    }

    /// Returns when a life must end before its checks have: it comes, or the life takes too long. Says which, and what was being waited for.
    pub(super) async fn or_too_long(&self, scene: &Scene) -> String {
        let why = tokio::select! {
            why = self.comes() => why,
            () = scene.takes_too_long() => too_long(),
        };
        match scene.awaited() {
            Some(what) => format!("{why}, while waiting for {what}"),
            None => why,
        }
    }

    /// The result of `work` unless it comes first, or has come before: then what was to be decided has not begun.
    ///
    /// # Errors
    /// It comes first, or `work` fails.
    pub(super) async fn unless<T, E: From<anyhow::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            why = self.comes() => Err(anyhow!("not begun; {why}").into()),
            done = work => done,
        }
    }
}

/// That a life has taken too long.
pub(super) fn too_long() -> String {
    format!("nothing was decided within {:?}", patience::LIFE)
}
