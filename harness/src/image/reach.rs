//! How an image gets to where it is judged.

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

use super::Subject;
use crate::cluster::engine::Engine;
use crate::cluster::request::limited;
use crate::cluster::{Cluster, Target, kind};
use crate::profile::Profile;
use crate::report::model::SubjectFacts;

impl Subject {
    /// What Pods call it on this cluster. A cluster of ours gets it from the engine; another one has to pull it by the name that was given.
    ///
    /// # Errors
    /// It is for other processors than the nodes', it cannot be loaded, or it has no name that a cluster elsewhere could know.
    pub async fn reach(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        // Who may not list nodes finds out when the image starts.
        if let Ok(nodes) = limited("list the nodes", nodes.list(&ListParams::default())).await {
            let architectures = nodes.iter().filter_map(|node| node.status.as_ref()?.node_info.as_ref());
            for info in architectures {
                self.fits(&info.architecture)?;
            }
        }
        match &cluster.target {
            Target::Kubeconfig(path) => {
                let name = kind::name_of(path).with_context(|| format!("{} is no cluster of ours", path.display()))?;
                self.into_cluster(&Engine::chosen()?, &name).await?;
                Ok(self.reference.clone())
            }
            Target::Context(context) => {
                ensure!(
                    !std::path::Path::new(&self.given).exists() && !self.given.starts_with("localhost/"),
                    "the cluster of the context {context} cannot pull {}: push the image to a registry and give its name there",
                    self.given
                );
                if self.is_seen() && self.digest.is_none() {
                    bail!(
                        "{} is in the local engine only: push it to a registry that the cluster of the context {context} can pull from",
                        self.given
                    );
                }
                Ok(self.given.clone())
            }
        }
    }

    /// What a report says of it.
    pub fn facts(&self, profile: &Profile) -> SubjectFacts {
        SubjectFacts {
            image: self.given.clone(),
            id: self.id.clone(),
            digest: self.digest.clone(),
            role: profile.role.map_or_else(String::new, |role| role.to_string()),
            claims: profile.claims.iter().flatten().map(ToString::to_string).collect(),
            architecture: self.architecture.clone(),
            size: self.size,
            layers: self.layers,
        }
    }
}
