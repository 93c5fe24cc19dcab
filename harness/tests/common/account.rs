//! Accounts with fewer rights than the administrator's.

use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecheck::cluster::{Cluster, Target};
use tempfile::TempDir;

/// An account with a name of its own; it is removed with [`Account::remove`].
pub struct Account {
    pub name: String,
    pub client: Client,
    folder: TempDir,
}

impl Account {
    /// One with these rules in the whole cluster.
    pub async fn create(name: &str, rules: Value) -> Self {
        let account = Self::without_rights(name).await;
        let (client, name) = (&account.client, &account.name);
        let metadata = json!({"name": name});
        create::<ClusterRole>(Api::all(client.clone()), json!({"metadata": metadata, "rules": rules})).await;
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
        let binding = json!({"metadata": metadata, "roleRef": role, "subjects": [account.subject()]});
        create::<ClusterRoleBinding>(Api::all(client.clone()), binding).await;
        account
    }

    /// One with these rules in these namespaces only.
    pub async fn bound(name: &str, namespaces: &[String], rules: &Value) -> Self {
        let account = Self::without_rights(name).await;
        let (client, name) = (&account.client, &account.name);
        let metadata = json!({"name": name});
        for namespace in namespaces {
            let role = json!({"metadata": metadata, "rules": rules});
            create::<Role>(Api::namespaced(client.clone(), namespace), role).await;
            let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
            let binding = json!({"metadata": metadata, "roleRef": role, "subjects": [account.subject()]});
            create::<RoleBinding>(Api::namespaced(client.clone(), namespace), binding).await;
        }
        account
    }

    async fn without_rights(name: &str) -> Self {
        let client = Cluster::connect().await.expect("a cluster").client;
        let name = format!("{name}-{}", std::process::id());
        let accounts = Api::namespaced(client.clone(), "default");
        create::<ServiceAccount>(accounts, json!({"metadata": {"name": name}})).await;
        Self {
            name,
            client,
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn subject(&self) -> Value {
        json!({"kind": "ServiceAccount", "name": self.name, "namespace": "default"})
    }

    pub fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// The harness's own kubeconfig, with a token of this account in the place of the administrator's certificate.
    pub async fn kubeconfig(&self) -> PathBuf {
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let request = self
            .accounts()
            .create_token_request(&self.name, &PostParams::default(), &request)
            .await
            .expect("a token");
        let token = request.status.expect("a token").token;
        let kubeconfig = Kubeconfig::read_from(super::kubeconfig()).expect("a kubeconfig");
        let mut kubeconfig = serde_json::to_value(kubeconfig).expect("JSON");
        kubeconfig["users"][0]["user"] = json!({"token": token});
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).expect("a file");
        path
    }

    /// The cluster as this account sees it.
    pub async fn cluster(&self) -> Cluster {
        let target = Target::Own(self.kubeconfig().await);
        Cluster::connect_to(target).await.expect("a client")
    }

    /// Removes the account, and what it may do in the whole cluster.
    pub async fn remove(self) {
        let parameters = DeleteParams::default();
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        bindings.delete(&self.name, &parameters).await.ok();
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        roles.delete(&self.name, &parameters).await.ok();
        self.accounts().delete(&self.name, &parameters).await.ok();
    }
}

async fn create<K>(api: Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("created");
}
