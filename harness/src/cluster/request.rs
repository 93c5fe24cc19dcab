//! Requests to the API server.

use std::error::Error;

use anyhow::Context;
use tokio::time::{Instant, sleep, timeout};

use crate::patience;

/// A request to the API server, bounded in time; `what` completes the sentence “cannot …”.
///
/// # Errors
/// It fails, or the API server does not answer within [`patience::API`].
pub(crate) async fn limited<T, E>(what: &str, request: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: Error + Send + Sync + 'static,
{
    timeout(patience::API, request)
        .await
        .with_context(|| format!("cannot {what}: the API server has not answered for {:?}", patience::API))?
        .with_context(|| format!("cannot {what}"))
}

/// A request that the API server passes on to a node. While a kubelet restarts it cannot be connected to, and then does not know its Pods yet:
/// nothing has reached the Pod, and the request is made again, for [`patience::API`] at most.
///
/// # Errors
/// It fails for another reason, or goes on failing.
pub(crate) async fn passed_on<T, F>(request: impl Fn() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let begun = Instant::now();
    loop {
        match request().await {
            Err(kube::Error::Api(status))
                if RESTARTING.iter().any(|text| status.message.starts_with(text))
                    && begun.elapsed() < patience::API =>
            {
                sleep(patience::RECONNECT).await;
            }
            outcome => return outcome,
        }
    }
}

/// What the API server answers when it cannot connect to a kubelet, and what a kubelet answers of a Pod that it does not know.
const RESTARTING: [&str; 2] = ["error dialing backend", "pod does not exist"];

/// Whether an error of [`limited`] is the API server's answer with one of these HTTP statuses.
pub(crate) fn is_answer(error: &anyhow::Error, statuses: &[u16]) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if statuses.contains(&status.code))
}

/// Nothing, if the account may not look there.
pub(crate) fn permitted<T>(answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_answer(&error, &[403]) => Ok(None),
        Err(error) => Err(error),
    }
}
