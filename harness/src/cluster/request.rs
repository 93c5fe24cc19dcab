//! Requests to the API server.

use std::error::Error;

use anyhow::Context;
use tokio::time::timeout;

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

/// Whether an error of [`limited`] is the API server's answer with one of these HTTP statuses.
pub(crate) fn is_answer(error: &anyhow::Error, statuses: &[u16]) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if statuses.contains(&status.code))
}
