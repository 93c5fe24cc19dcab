//! A Kubernetes container, said in the words of the engine.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use testcontainers::bollard::models::{ContainerCreateBody, HostConfig};

/// The label of all containers that sidecheck starts itself; `sidecheck clean` removes those that are left.
const LABEL: &str = "sidecheck.dev/test";

/// What to ask the engine for. The volumes' contents are put into `folder`.
pub(super) fn request(
    pod_spec: &Value,
    name: &str,
    config_maps: &[Value],
    folder: &Path,
    podman: bool,
) -> anyhow::Result<ContainerCreateBody> {
    let lists = ["containers", "initContainers"];
    let container = lists
        .iter()
        .filter_map(|list| pod_spec[list].as_array())
        .flatten()
        .find(|container| container["name"] == name)
        .with_context(|| format!("the Pod has no container “{name}”"))?;
    let image = container["image"]
        .as_str()
        .with_context(|| format!("the container “{name}” has no image"))?;
    let environment = variables(container)?;
    let words = |list: &str| {
        let list = texts(&container[list]);
        (!list.is_empty()).then(|| list.iter().map(|word| expanded(word, &environment)).collect())
    };
    let security = Security {
        pod: &pod_spec["securityContext"],
        container: &container["securityContext"],
    };
    let read_only = security.is("readOnlyRootFilesystem", true);
    let memory = quantity(&container["resources"]["limits"]["memory"])?.map(|bytes| bytes as i64);
    let host = HostConfig {
        binds: Some(
            Volumes {
                pod_spec,
                config_maps,
                folder,
            }
            .binds(container)?,
        ),
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(read_only),
        tmpfs: (read_only && podman).then(|| closed(container)),
        privileged: Some(security.is("privileged", true)),
        security_opt: security
            .is("allowPrivilegeEscalation", false)
            .then(|| vec!["no-new-privileges".to_owned()]),
        cap_add: Some(texts(&security.container["capabilities"]["add"])),
        cap_drop: Some(texts(&security.container["capabilities"]["drop"])),
        group_add: Some(security.groups()),
        memory,
        memory_swap: memory,
        nano_cpus: quantity(&container["resources"]["limits"]["cpu"])?.map(|cores| (cores * 1e9) as i64),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: words("command"),
        cmd: words("args"),
        env: Some(
            environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        working_dir: container["workingDir"].as_str().map(str::to_owned),
        user: security.user(),
        labels: Some(HashMap::from([(LABEL.to_owned(), String::new())])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// The folders that podman makes writable although the root file system is not, unless something is mounted there. Kubernetes does not.
fn closed(container: &Value) -> HashMap<String, String> {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let mounted: Vec<&str> = mounts.filter_map(|mount| mount["mountPath"].as_str()).collect();
    ["/tmp", "/run", "/var/tmp"]
        .into_iter()
        .filter(|folder| !mounted.iter().any(|mount| mount.trim_end_matches('/') == *folder))
        .map(|folder| (folder.to_owned(), "ro,tmpcopyup".to_owned()))
        .collect()
}

/// A container's security context, which goes before that of its Pod.
struct Security<'a> {
    pod: &'a Value,
    container: &'a Value,
}

impl Security<'_> {
    fn is(&self, field: &str, value: bool) -> bool {
        self.container[field].as_bool() == Some(value)
    }

    fn number(&self, field: &str) -> Option<i64> {
        self.container[field].as_i64().or_else(|| self.pod[field].as_i64())
    }

    /// `UID` or `UID:GID`; none if the image decides.
    fn user(&self) -> Option<String> {
        let user = self.number("runAsUser")?;
        Some(match self.number("runAsGroup") {
            Some(group) => format!("{user}:{group}"),
            None => user.to_string(),
        })
    }

    fn groups(&self) -> Vec<String> {
        let supplemental = self.pod["supplementalGroups"].as_array().into_iter().flatten();
        let groups = supplemental.chain([&self.pod["fsGroup"]]);
        groups
            .filter_map(Value::as_i64)
            .map(|group| group.to_string())
            .collect()
    }
}

/// The environment. A value may name variables that stand before it.
fn variables(container: &Value) -> anyhow::Result<BTreeMap<String, String>> {
    ensure!(
        container["envFrom"].as_array().is_none_or(Vec::is_empty),
        "envFrom cannot be given to a container alone: use plain values"
    );
    let mut known = BTreeMap::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().context("a variable has no name")?;
        ensure!(
            variable["valueFrom"].is_null(),
            "the variable {name} cannot be given to a container alone: use a plain value"
        );
        let value = expanded(variable["value"].as_str().unwrap_or_default(), &known);
        known.insert(name.to_owned(), value);
    }
    Ok(known)
}

/// The text with each `$(NAME)` replaced, as the kubelet does it: unknown names stay, and `$$` stands for `$`.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix("$$") {
            result.push('$');
            rest = after;
        } else if let Some((value, (_, after))) = name.and_then(|name| Some((variables.get(name.0)?, name))) {
            result.push_str(value);
            rest = after;
        } else {
            result.push('$');
            rest = &rest[1..];
        }
    }
    result + rest
}

/// The Pod's volumes, as folders of this machine.
struct Volumes<'a> {
    pod_spec: &'a Value,
    config_maps: &'a [Value],
    folder: &'a Path,
}

impl Volumes<'_> {
    /// The mounts of a container, as the engine writes them.
    fn binds(&self, container: &Value) -> anyhow::Result<Vec<String>> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts.map(|mount| self.bind(mount)).collect()
    }

    fn bind(&self, mount: &Value) -> anyhow::Result<String> {
        let name = mount["name"].as_str().context("a volume mount has no name")?;
        let target = mount["mountPath"]
            .as_str()
            .with_context(|| format!("the mount of the volume {name} has no mountPath"))?;
        let (mut source, writable) = self.content(name)?;
        if let Some(below) = mount["subPath"].as_str().filter(|below| !below.is_empty()) {
            source = inside(&source, below)?;
            if !source.exists() {
                ensure!(writable, "the volume {name} has no file “{below}”, which subPath names");
                open_folder(&source)?;
            }
        }
        let mode = if writable && mount["readOnly"] != true {
            "rw"
        } else {
            "ro"
        };
        // z: where SELinux is on, containers may use it.
        Ok(format!("{}:{target}:{mode},z", source.display()))
    }

    /// The folder of a volume, and whether the container may write to it.
    fn content(&self, name: &str) -> anyhow::Result<(PathBuf, bool)> {
        let volume = self.pod_spec["volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|volume| volume["name"] == name)
            .with_context(|| format!("the Pod has no volume {name}"))?;
        let folder = inside(self.folder, name)?;
        if volume["emptyDir"].is_object() {
            if !folder.exists() {
                open_folder(&folder)?;
            }
            Ok((folder, true))
        } else if volume["configMap"].is_object() {
            if !folder.exists() {
                open_folder(&folder)?;
                self.write(&volume["configMap"], &folder)?;
            }
            Ok((folder, false))
        } else {
            bail!("the volume {name} cannot be given to a container alone: it is neither an emptyDir nor a configMap")
        }
    }

    /// Writes the files of a ConfigMap: all of them, or those that `items` names.
    fn write(&self, volume: &Value, folder: &Path) -> anyhow::Result<()> {
        let name = volume["name"].as_str().context("a configMap volume has no name")?;
        let found = self.config_maps.iter().find(|map| map["metadata"]["name"] == name);
        let Some(map) = found else {
            ensure!(volume["optional"] == true, "there is no ConfigMap {name}");
            return Ok(());
        };
        ensure!(
            map["binaryData"].as_object().is_none_or(serde_json::Map::is_empty),
            "the ConfigMap {name} has binary data, which cannot be given to a container alone"
        );
        let all: Vec<Value> = map["data"]
            .as_object()
            .into_iter()
            .flat_map(|data| data.keys())
            .map(|key| serde_json::json!({"key": key, "path": key}))
            .collect();
        for item in volume["items"].as_array().unwrap_or(&all) {
            let key = item["key"].as_str().unwrap_or_default();
            let text = map["data"][key].as_str();
            let Some(text) = text else {
                ensure!(volume["optional"] == true, "the ConfigMap {name} has no key “{key}”");
                continue;
            };
            let file = inside(folder, item["path"].as_str().unwrap_or(key))?;
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, text)?;
            let mode = item["mode"].as_u64().or_else(|| volume["defaultMode"].as_u64());
            let mode = mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
            fs::set_permissions(&file, Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// A path below a folder.
fn inside(folder: &Path, below: &str) -> anyhow::Result<PathBuf> {
    let plain = Path::new(below)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    ensure!(plain, "“{below}” is no path inside a volume");
    Ok(folder.join(below))
}

/// Makes a folder that every user may write to, as those of an emptyDir are.
fn open_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o777))
        .with_context(|| format!("{} cannot be opened to all users", folder.display()))
}

fn texts(list: &Value) -> Vec<String> {
    let words = list.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A quantity of Kubernetes: `64Mi`, `0.5`, `500m`; none if there is none.
fn quantity(value: &Value) -> anyhow::Result<Option<f64>> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let end = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len();
    let factor = match &text[end..] {
        "" => Some(1.0),
        "n" => Some(1e-9),
        "u" => Some(1e-6),
        "m" => Some(1e-3),
        "k" => Some(1e3),
        "M" => Some(1e6),
        "G" => Some(1e9),
        "T" => Some(1e12),
        "Ki" => Some(1024_f64),
        "Mi" => Some(1024_f64.powi(2)),
        "Gi" => Some(1024_f64.powi(3)),
        "Ti" => Some(1024_f64.powi(4)),
        _ => None,
    };
    let number = text[..end].parse::<f64>().ok();
    let product = number.zip(factor).map(|(number, factor)| number * factor);
    let amount = product.with_context(|| format!("“{text}” is no quantity; expected something like 64Mi or 500m"))?;
    Ok(Some(amount))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;
    use serde_json::json;

    use super::{expanded, inside, quantity};

    #[rstest]
    #[case(json!("64Mi"), Some(67_108_864.0))]
    #[case(json!("500m"), Some(0.5))]
    #[case(json!("1.5G"), Some(1.5e9))]
    #[case(json!("1e3"), Some(1000.0))]
    #[case(json!(2), Some(2.0))]
    #[case(json!(null), None)]
    fn a_quantity_is_a_number(#[case] text: serde_json::Value, #[case] number: Option<f64>) {
        assert_eq!(quantity(&text).expect("a quantity"), number);
    }

    #[rstest]
    #[case("much")]
    #[case("5Mb")]
    fn something_else_is_no_quantity(#[case] text: &str) {
        assert!(quantity(&json!(text)).is_err());
    }

    #[rstest]
    #[case("--port=$(PORT)", "--port=8080")]
    #[case("$(PORT)$(PORT)", "80808080")]
    #[case("$(OTHER) $PORT $", "$(OTHER) $PORT $")]
    #[case("$$(PORT)", "$(PORT)")]
    fn variables_are_expanded_as_the_kubelet_does(#[case] text: &str, #[case] result: &str) {
        let known = BTreeMap::from([("PORT".to_owned(), "8080".to_owned())]);
        assert_eq!(expanded(text, &known), result);
    }

    #[test]
    fn a_volume_is_not_left() {
        assert!(inside("/a".as_ref(), "../b").is_err());
        assert!(inside("/a".as_ref(), "/b").is_err());
        assert!(inside("/a".as_ref(), "b/c").is_ok());
    }
}
