//! How an image gets to where it is judged.

use anyhow::{Context, bail, ensure};

use super::Subject;
use crate::cluster::engine::Engine;
use crate::cluster::{Cluster, Target, kind};
use crate::profile::Profile;
use crate::report::model::SubjectFacts;

impl Subject {
    /// What Pods call it on this cluster. A cluster of ours gets it from the engine; another one has to pull it by the name that was given.
    ///
    /// # Errors
    /// It is for other processors than the nodes', it cannot be loaded, or it has no name that a cluster elsewhere could know.
    pub async fn reach(&self, cluster: &Cluster) -> anyhow::Result<String> {
        // Who may not list nodes finds out when the image starts.
        let nodes = cluster.nodes().await?.unwrap_or_default();
        for info in nodes.iter().filter_map(|node| node.status.as_ref()?.node_info.as_ref()) {
            self.fits(&info.architecture)?;
        }
        match &cluster.target {
            Target::Own(path) => {
                let name = kind::name_of(path).with_context(|| format!("{} is no cluster of ours", path.display()))?;
                self.into_cluster(&Engine::chosen()?, &name).await?;
                Ok(self.reference.clone())
            }
            theirs => {
                ensure!(
                    !std::path::Path::new(&self.given).exists() && !self.given.starts_with("localhost/"),
                    "{theirs} cannot pull {}: push the image to a registry and give its name there",
                    self.given
                );
                if self.is_seen() && self.digest.is_none() {
                    bail!(
                        "{} is in the local engine only: push it to a registry that {theirs} can pull from",
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
