//! HTTP to a container through a forwarded port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::patience;

/// A port of a Pod, forwarded to this machine for as long as the value lives.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    client: reqwest::Client,
    forwarding: JoinHandle<()>,
    refusal: Arc<Mutex<Option<String>>>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Http {
    pub(super) async fn forward(api: Api<Pod>, pod: &str, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot open a local port")?;
        let address = listener.local_addr()?;
        let refusal = Arc::new(Mutex::new(None));
        let forwarding = tokio::spawn(accept(listener, api, pod.to_owned(), port, Arc::clone(&refusal)));
        // Each request has a connection of its own: a container that restarted must not be met through an old one.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(patience::ROUND_TRIP)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            address,
            client,
            forwarding,
            refusal,
        })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// There was no answer; the message tells why, as far as the node knows.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(self.client.get(self.url(path))).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        self.send(self.client.post(self.url(path)).body(body.to_owned())).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let refusal = || self.refusal.lock().ok().and_then(|mut refusal| refusal.take());
        refusal();
        let answer = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let body = response.bytes().await?;
            Ok::<_, reqwest::Error>(Answer {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let why = refusal().unwrap_or_else(|| "the connection was closed".to_owned());
                Err(anyhow::Error::new(error).context(format!("no answer: {}", why.trim())))
            }
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

async fn accept(listener: TcpListener, api: Api<Pod>, pod: String, port: u16, refusal: Arc<Mutex<Option<String>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (api, pod, refusal) = (api.clone(), pod.clone(), Arc::clone(&refusal));
        connections.spawn(async move {
            if let Err(error) = carry(connection, &api, &pod, port).await
                && let Ok(mut refusal) = refusal.lock()
            {
                *refusal = Some(format!("{error:#}"));
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut local: TcpStream, api: &Api<Pod>, pod: &str, port: u16) -> anyhow::Result<()> {
    let mut forwarder = api
        .portforward(pod, &[port])
        .await
        .context("the port cannot be forwarded")?;
    let mut remote = forwarder.take_stream(port).context("no stream")?;
    let error = forwarder.take_error(port).context("no error channel")?;
    let copied = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
    drop(remote);
    if let Some(message) = error.await {
        anyhow::bail!(message);
    }
    copied?;
    Ok(())
}
