//! HTTP to a container through a forwarded port.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use reqwest::Method;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::patience;

/// The most that is kept of an answer's body, in bytes.
const BODY: usize = 1 << 20;

/// A port of a Pod, reached through the API server. It leads to the Pod's loopback interface.
#[derive(Clone, Debug)]
pub struct Http {
    api: Api<Pod>,
    pod: String,
    port: u16,
    client: reqwest::Client,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most a mebibyte of it; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Answer {
    /// Whether the body has this line.
    pub fn has_line(&self, line: &str) -> bool {
        self.body.lines().any(|candidate| candidate == line)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.body.trim_end())
    }
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nobody listens on the port: the request did not reach any program.
    #[error("connection refused")]
    Refused,
    /// The program closed the connection without an answer.
    #[error("the connection was closed without an answer: {0}")]
    Closed(String),
    /// The request did not get as far as the Pod: the API server or the kubelet does not forward it.
    #[error("the port cannot be forwarded: {0}")]
    Undelivered(String),
}

impl Http {
    pub(super) fn new(api: Api<Pod>, pod: &str, port: u16) -> anyhow::Result<Self> {
        // Each request has a connection of its own: a container that restarted must not be met through an old one.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(patience::ROUND_TRIP)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            api,
            pod: pod.to_owned(),
            port,
            client,
        })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Unanswered> {
        self.send(Method::GET, path, String::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: String) -> Result<Answer, Unanswered> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Answer, Unanswered> {
        let undelivered = |error: std::io::Error| Unanswered::Undelivered(format!("no local port: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(undelivered)?;
        let address = listener.local_addr().map_err(undelivered)?;
        let (api, pod, port) = (self.api.clone(), self.pod.clone(), self.port);
        let mut carried = JoinSet::new();
        carried.spawn(async move { carry(listener, &api, &pod, port).await });
        let request = self
            .client
            .request(method, format!("http://{address}{path}"))
            .body(body);
        match answer(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let closed = Unanswered::Closed(error.without_url().to_string());
                // What the node says of the connection is told when that has ended on both sides.
                match timeout(patience::API, carried.join_next()).await {
                    Ok(Some(Ok(Err(why)))) => Err(why),
                    _ => Err(closed),
                }
            }
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(BODY - body.len())]);
        if body.len() == BODY {
            break;
        }
    }
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Carries one connection to the Pod's port, until both sides have closed it.
async fn carry(listener: TcpListener, api: &Api<Pod>, pod: &str, port: u16) -> Result<(), Unanswered> {
    let undelivered = |error: &dyn std::fmt::Display| Unanswered::Undelivered(error.to_string());
    let (mut local, _) = listener.accept().await.map_err(|error| undelivered(&error))?;
    let mut forwarder = timeout(patience::API, api.portforward(pod, &[port]))
        .await
        .map_err(|_| undelivered(&format!("no answer for {:?}", patience::API)))?
        .map_err(|error| undelivered(&error))?;
    let (Some(mut remote), Some(message)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
        return Err(undelivered(&"the API server offers no stream"));
    };
    let copied = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
    drop((local, remote));
    match message.await {
        // The kubelet repeats what the kernel of the node said.
        Some(message) if message.contains("onnection refused") => Err(Unanswered::Refused),
        Some(message) if message.contains("reset by peer") || message.contains("broken pipe") => {
            Err(Unanswered::Closed(message.trim().to_owned()))
        }
        Some(message) => Err(undelivered(&message.trim())),
        None => copied.map(drop).map_err(|error| Unanswered::Closed(error.to_string())),
    }
}
