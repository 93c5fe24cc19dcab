//! HTTP to a container through a forwarded port.

use std::net::SocketAddr;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use reqwest::Method;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::cluster::request::passed_on;
use crate::display::explained;
use crate::patience;

/// The most that is kept of an answer's body, in bytes.
const BODY: usize = 1 << 20;

/// A port of a Pod, forwarded to this machine for as long as the value lives. It leads to the Pod's loopback interface.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    client: reqwest::Client,
    /// Why forwarded connections ended, if not in good order.
    failures: Mutex<mpsc::UnboundedReceiver<Unanswered>>,
    forwarding: JoinHandle<()>,
}

/// Whether a connection serves one request or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    /// Each request has a connection of its own: a container that restarted must not be met through an old one.
    One,
    /// A connection is kept for the next request: opening one costs the node as much as starting a process.
    Kept,
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
    pub(super) async fn forward(api: Api<Pod>, pod: &str, port: u16, connections: Connections) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot open a local port")?;
        let address = listener.local_addr()?;
        let (failed, failures) = mpsc::unbounded_channel();
        let forwarding = tokio::spawn(accept(listener, api, pod.to_owned(), port, failed));
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(if connections == Connections::Kept {
                usize::MAX
            } else {
                0
            })
            .timeout(patience::ROUND_TRIP)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            address,
            client,
            failures: Mutex::new(failures),
            forwarding,
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
        while self.failures.lock().await.try_recv().is_ok() {}
        let request = self
            .client
            .request(method, format!("http://{}{path}", self.address))
            .body(body);
        let error = match answer(request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Unanswered::Closed(error.without_url().to_string()),
        };
        // What the node says of the connection comes when that has ended on both sides.
        let why = async { self.failures.lock().await.recv().await };
        Err(timeout(patience::STANDSTILL, why).await.ok().flatten().unwrap_or(error))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

async fn accept(
    listener: TcpListener,
    api: Api<Pod>,
    pod: String,
    port: u16,
    failed: mpsc::UnboundedSender<Unanswered>,
) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (api, pod, failed) = (api.clone(), pod.clone(), failed.clone());
        connections.spawn(async move {
            if let Err(why) = carry(connection, &api, &pod, port).await {
                // Nobody listens any more once the port is closed.
                let _ = failed.send(why);
            }
        });
        while connections.try_join_next().is_some() {}
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
async fn carry(mut local: TcpStream, api: &Api<Pod>, pod: &str, port: u16) -> Result<(), Unanswered> {
    let undelivered = |error: &dyn std::fmt::Display| Unanswered::Undelivered(error.to_string());
    let ports = [port];
    let forwarded = passed_on(|| api.portforward(pod, &ports));
    let mut forwarder = timeout(patience::API, forwarded)
        .await
        .map_err(|_| undelivered(&format!("no answer for {:?}", patience::API)))?
        .map_err(|error| undelivered(&explained(&error.into())))?;
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
