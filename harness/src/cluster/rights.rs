//! What an account may do on a cluster, asked before anything is created.

use std::fmt;

use anyhow::bail;
use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::request::limited;

/// The files with roles that have all the rights.
const IN_NAMESPACES: &str = "docs/rbac/namespace.yaml";
const IN_THE_CLUSTER: &str = "docs/rbac/cluster.yaml";

/// A right to do something with a resource of the API: `get pods/log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// `create`, `get` and so on.
    pub verb: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// The plural, with a subresource after a slash.
    pub resource: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

const fn core(verb: &'static str, resource: &'static str) -> Right {
    Right {
        verb,
        group: "",
        resource,
    }
}

/// What every check does in its namespace.
const EVERY_CHECK: [Right; 15] = [
    core("create", "pods"),
    core("get", "pods"),
    core("list", "pods"),
    core("watch", "pods"),
    core("delete", "pods"),
    core("deletecollection", "pods"),
    core("get", "pods/log"),
    core("create", "pods/exec"),
    core("create", "pods/portforward"),
    core("list", "events"),
    core("create", "configmaps"),
    core("list", "configmaps"),
    core("patch", "configmaps"),
    core("delete", "configmaps"),
    core("patch", "pods"),
];

/// What it takes to have namespaces of one's own.
const OWN_NAMESPACES: [Right; 5] = [
    core("create", "namespaces"),
    core("list", "namespaces"),
    core("patch", "namespaces"),
    core("delete", "namespaces"),
    core("patch", "serviceaccounts"),
];

/// The rights that a run lacks, each with the namespace that it lacks it in: in these namespaces, or in ones of its own if none are given.
///
/// # Errors
/// The API server does not answer.
pub async fn missing(client: &Client, namespaces: &[String]) -> anyhow::Result<Vec<(Right, Option<String>)>> {
    let mut asked: Vec<(Right, Option<String>)> = Vec::new();
    if namespaces.is_empty() {
        asked.extend(EVERY_CHECK.into_iter().chain(OWN_NAMESPACES).map(|right| (right, None)));
    }
    for namespace in namespaces {
        asked.extend(EVERY_CHECK.map(|right| (right, Some(namespace.clone()))));
    }
    let answers = try_join_all(asked.iter().map(async |(right, namespace)| {
        let allowed = is_allowed(client, right.verb, right.group, right.resource, namespace.as_deref()).await?;
        // A GET asks for another verb than a POST; servers before 1.35 take either for a connection to a Pod.
        let connects = matches!(right.resource, "pods/exec" | "pods/portforward");
        anyhow::Ok(allowed || (connects && is_allowed(client, "get", "", right.resource, namespace.as_deref()).await?))
    }))
    .await?;
    let lacking = asked.into_iter().zip(answers).filter(|(_, allowed)| !allowed);
    Ok(lacking.map(|(right, _)| right).collect())
}

/// Fails if the account lacks a right that every check needs: which, and where.
///
/// # Errors
/// The rights are missing, or the API server does not answer.
pub async fn require(client: &Client, namespaces: &[String]) -> anyhow::Result<()> {
    let missing = missing(client, namespaces).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = missing
        .iter()
        .map(|(right, namespace)| match namespace {
            Some(namespace) => format!("  {right} in the namespace {namespace}"),
            None => format!("  {right} in every namespace"),
        })
        .collect();
    let (roles, advice) = match namespaces {
        [] => (
            IN_THE_CLUSTER,
            "; an account that may only work in some namespaces names them with --namespace",
        ),
        _ => (IN_NAMESPACES, ""),
    };
    bail!(
        "this account may not do what the checks do, and nothing was created. It lacks\n{}\n{roles} has all the rights{advice}",
        listed.join("\n")
    )
}

/// Asks whether this account has a right: in every namespace and for what belongs to none, if no namespace is given.
///
/// # Errors
/// The API server does not answer.
pub async fn is_allowed(
    client: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> anyhow::Result<bool> {
    let (resource, subresource) = resource
        .split_once('/')
        .map_or((resource, None), |(resource, sub)| (resource, Some(sub.to_owned())));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = limited("ask for rights", reviews.create(&PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}
