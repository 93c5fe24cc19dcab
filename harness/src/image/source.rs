//! Where an image comes from: an archive, the engine, or a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use super::NoEngine;
use crate::cluster::engine::{self, Engine};
use crate::display::explained;
use crate::patience;
use crate::profile::{ImageDefaults, short_name};

/// Below this name, images under judgement have the last part of their own in the engine and on nodes; the tag is the beginning of the id.
const NAMES: &str = "localhost/sidecheck-subject";

/// An image to judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What the user called it.
    pub given: String,
    /// What it is called here.
    pub reference: String,
    /// The digest of its configuration: `sha256:…`.
    pub id: String,
    /// The digest that its registry knows it by, if it has one.
    pub digest: Option<String>,
    /// The processor it is for, as Go names it: `amd64`.
    pub architecture: String,
    /// The system it is for.
    pub os: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
    /// What it says about how to run it.
    pub defaults: ImageDefaults,
    /// Whether the engine did not have it before: then it goes again with our name.
    #[serde(default)]
    brought: bool,
}

impl Subject {
    /// The image that `text` names: an archive or a folder with an OCI layout, an image of the engine, or one of a registry. The engine has
    /// it afterwards, under [`Self::reference`]; the names in an archive change nothing there.
    ///
    /// # Errors
    /// [`NoEngine`]; there is no such image; it is no archive of an image; or it holds several.
    pub async fn obtain(text: &str) -> anyhow::Result<Self> {
        ensure!(!text.trim().is_empty(), "no image is named");
        let engine = Engine::chosen().map_err(|error| NoEngine(explained(&error)))?;
        engine.probe().await.map_err(|error| NoEngine(explained(&error)))?;
        let path = Path::new(text);
        let mut subject = if path.is_file() || path.join("oci-layout").is_file() {
            let (id, brought) = load(&engine, path)
                .await
                .with_context(|| format!("the image in {text} cannot be used"))?;
            let described = inspect(&engine, &id).await?;
            let described = described
                .with_context(|| format!("{} does not know {id}, which it has just loaded", engine.program()))?;
            Self { brought, ..described }
        } else if let Some(described) = inspect(&engine, text).await? {
            described
        } else {
            pull(&engine, text).await?;
            let described = inspect(&engine, text).await?;
            described.with_context(|| format!("{} does not know {text}, which it has just pulled", engine.program()))?
        };
        subject = subject.named(text);
        let mut tag = engine.command();
        tag.args(["tag", &subject.id, &subject.reference]);
        engine::run(&mut tag, patience::ENGINE)
            .await
            .with_context(|| format!("{text} cannot be given the name {}", subject.reference))?;
        Ok(subject)
    }

    /// An image of a registry of which only its name is known, because no engine can look at it.
    pub fn unseen(text: &str) -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            given: text.to_owned(),
            reference: text.to_owned(),
            id: unknown(),
            digest: text.split_once('@').map(|(_, digest)| digest.to_owned()),
            architecture: unknown(),
            os: unknown(),
            size: 0,
            layers: 0,
            defaults: ImageDefaults::default(),
            brought: false,
        }
    }

    /// Whether an engine has looked at it.
    pub fn is_seen(&self) -> bool {
        self.layers > 0
    }

    /// Whether it runs on Linux nodes with this processor: `amd64` or `x86_64`, for example.
    ///
    /// # Errors
    /// What it is for, and what was expected.
    pub fn fits(&self, architecture: &str) -> anyhow::Result<()> {
        if !self.is_seen() {
            return Ok(());
        }
        let wanted = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        if (self.os.as_str(), self.architecture.as_str()) != ("linux", wanted) {
            bail!(
                "{} is an image for {}/{}, but linux/{wanted} is needed: build or pull it with --platform linux/{wanted}",
                self.given,
                self.os,
                self.architecture
            );
        }
        Ok(())
    }

    /// The same image, as the user has named it: our name for it has the last part of that.
    fn named(self, given: &str) -> Self {
        let (_, start) = self.reference.rsplit_once(':').unwrap_or_default();
        Self {
            given: given.to_owned(),
            reference: format!("{NAMES}/{}:{start}", short_name(given)),
            ..self
        }
    }

    /// Loads it into the nodes of a kind cluster, unless they all have it.
    ///
    /// # Errors
    /// It cannot be saved or loaded.
    pub async fn into_cluster(&self, engine: &Engine, cluster: &str) -> anyhow::Result<()> {
        let mut nodes = engine.tool("kind");
        nodes.args(["get", "nodes", "--name", cluster]);
        let nodes = lines(&mut nodes).await?;
        ensure!(!nodes.is_empty(), "kind knows no nodes of the cluster {cluster}");
        let mut missing = false;
        for node in nodes {
            let mut list = engine.command();
            let filter = format!("name=={}", self.reference);
            list.args([
                "exec",
                &node,
                "ctr",
                "--namespace",
                "k8s.io",
                "images",
                "list",
                "--quiet",
                &filter,
            ]);
            missing |= lines(&mut list).await?.is_empty();
        }
        if !missing {
            return Ok(());
        }
        let folder = folder()?;
        let archive = folder.path().join("image.tar");
        let mut save = engine.command();
        save.arg("save");
        if engine.program() == "podman" {
            save.args(["--format", "docker-archive"]);
        }
        save.arg("--output").arg(&archive).arg(&self.reference);
        engine::run(&mut save, patience::TRANSFER)
            .await
            .with_context(|| format!("{} cannot be saved", self.given))?;
        let mut load = engine.tool("kind");
        load.args(["load", "image-archive", "--name", cluster]).arg(&archive);
        engine::run(&mut load, patience::TRANSFER)
            .await
            .with_context(|| format!("{} cannot be loaded into the cluster {cluster}", self.given))?;
        Ok(())
    }

    /// Removes our name for it from the engine. The image goes too if it came from an archive and has no other name.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn remove_tag(&self, engine: &Engine) -> anyhow::Result<()> {
        let Some(image) = described(engine, &self.reference).await? else {
            return Ok(());
        };
        let names = image["RepoTags"].as_array().map_or(0, Vec::len);
        if names > 1 || self.brought {
            remove_name(engine, &self.reference).await
        } else if engine.program() == "podman" {
            // An image of the user's without a name: its last name must not take it along.
            let mut untag = engine.command();
            untag.args(["untag", &self.id, &self.reference]);
            engine::run(&mut untag, patience::ENGINE).await.map(drop)
        } else {
            tracing::info!("{} stays: without a name, the image would go", self.reference);
            Ok(())
        }
    }
}

/// What the engine says about an image; none if it has no such image.
async fn described(engine: &Engine, image: &str) -> anyhow::Result<Option<Value>> {
    if image.starts_with('-') || !engine.has_image(image).await? {
        return Ok(None);
    }
    let mut inspect = engine.command();
    inspect.args(["image", "inspect", image]);
    let output = engine::run(&mut inspect, patience::ENGINE).await?;
    let described: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} image inspect {image} printed no JSON", engine.program()))?;
    Ok(Some(described[0].clone()))
}

/// The image of this name; none if the engine has no such image.
pub(super) async fn inspect(engine: &Engine, image: &str) -> anyhow::Result<Option<Subject>> {
    described(engine, image).await?.map(|image| subject(&image)).transpose()
}

/// Reads what docker or podman says about an image.
fn subject(image: &Value) -> anyhow::Result<Subject> {
    let id = image["Id"].as_str().context("the engine names no Id of the image")?;
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    let start = id.get(..16).with_context(|| format!("“{id}” is no id of an image"))?;
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(text).collect();
    let config = &image["Config"];
    let exposed = config["ExposedPorts"].as_object().into_iter().flatten();
    let exposed: BTreeSet<u16> = exposed
        .filter_map(|(port, _)| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
        .collect();
    let labels = config["Labels"].as_object().into_iter().flatten();
    // podman names the health check beside the configuration.
    let checks = [&config["Healthcheck"], &image["Healthcheck"], &image["HealthCheck"]];
    let defaults = ImageDefaults {
        user: text(&config["User"]),
        exposed: exposed.into_iter().collect(),
        stop_signal: text(&config["StopSignal"]),
        entrypoint: texts(&config["Entrypoint"]),
        cmd: texts(&config["Cmd"]),
        has_healthcheck: checks
            .iter()
            .any(|check| check["Test"][0].as_str().is_some_and(|kind| kind != "NONE")),
        labels: labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    };
    let digest = image["RepoDigests"][0].as_str().and_then(|name| name.split_once('@'));
    Ok(Subject {
        given: String::new(),
        reference: format!("{NAMES}/image:{start}"),
        id: format!("sha256:{id}"),
        digest: digest.map(|(_, digest)| digest.to_owned()),
        architecture: text(&image["Architecture"]).unwrap_or_default(),
        os: text(&image["Os"]).unwrap_or_default(),
        size: image["Size"].as_u64().unwrap_or_default(),
        layers: image["RootFS"]["Layers"].as_array().map_or(0, Vec::len),
        defaults,
        brought: false,
    })
}

async fn pull(engine: &Engine, text: &str) -> anyhow::Result<()> {
    let program = engine.program();
    let missing = || format!("there is no image “{text}”: no such archive, and {program} has none of that name");
    if Path::new(text).is_dir() {
        bail!("{}; the folder holds no OCI layout (no file oci-layout)", missing());
    }
    if text.starts_with(['/', '.', '-', '~']) {
        bail!("{}; name an archive that exists, or an image", missing());
    }
    let mut pull = engine.command();
    pull.args(["pull", text]);
    engine::run(&mut pull, patience::TRANSFER)
        .await
        .with_context(|| format!("{}, and no registry gives it", missing()))?;
    Ok(())
}

/// Loads an archive or a folder; returns the id of its image and whether the engine did not have it before.
async fn load(engine: &Engine, path: &Path) -> anyhow::Result<(String, bool)> {
    let held = contents(path).await?;
    if let [_, _, ..] = held.as_slice() {
        bail!(
            "expected one image, observed {}: {}; save the one to judge alone",
            held.len(),
            held.join(", ")
        );
    }
    let before = names(engine).await?;
    let folder = folder()?;
    let archive = if path.is_dir() {
        // podman takes folders too, but not every name of one.
        let packed = folder.path().join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg("--file")
            .arg(&packed)
            .arg("--directory")
            .arg(path);
        tar.args(["oci-layout", "index.json", "blobs"]);
        engine::run(&mut tar, patience::TRANSFER).await?;
        packed
    } else {
        path.to_owned()
    };
    let mut load = engine.command();
    load.arg("load").arg("--input").arg(&archive);
    let output = engine::run(&mut load, patience::TRANSFER).await?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    // “Loaded image: NAME”, “Loaded image ID: sha256:…”, and of older ones “Loaded image(s): NAME,NAME”.
    let loaded = output
        .lines()
        .filter_map(|line| line.strip_prefix("Loaded image")?.split_once(": "));
    let loaded: Vec<&str> = loaded.flat_map(|(_, names)| names.split(',')).map(str::trim).collect();
    let first = loaded.first().with_context(|| {
        format!(
            "expected “Loaded image: …” from {} load, observed: {output}",
            engine.program()
        )
    })?;
    let image = described(engine, first)
        .await?
        .with_context(|| format!("{first} was loaded but is not there"))?;
    let subject = subject(&image)?.named(&path.to_string_lossy());
    // Our name keeps the image while those of the archive go, or go back to what they named.
    let mut tag = engine.command();
    tag.args(["tag", &subject.id, &subject.reference]);
    engine::run(&mut tag, patience::ENGINE).await?;
    for name in loaded
        .into_iter()
        .filter(|name| name.contains(':') && !name.starts_with("sha256:") || name.contains('/'))
    {
        match before.get(&with_tag(name)) {
            Some(id) if *id == subject.id => {}
            Some(id) => {
                let mut back = engine.command();
                back.args(["tag", id, name]);
                engine::run(&mut back, patience::ENGINE).await?;
            }
            None => remove_name(engine, name).await?,
        }
    }
    let brought = !before.values().any(|id| *id == subject.id);
    Ok((subject.id, brought))
}

/// The names of an archive's or a folder's images.
async fn contents(path: &Path) -> anyhow::Result<Vec<String>> {
    let (manifest, text) = if path.is_dir() {
        (
            "index.json".to_owned(),
            fs::read(path.join("index.json")).context("the folder has no index.json")?,
        )
    } else {
        let strange = "expected an archive made by docker save, podman save or for OCI";
        let mut list = Command::new("tar");
        list.arg("--list").arg("--file").arg(path);
        let entries = lines(&mut list)
            .await
            .with_context(|| format!("{strange}, observed a file that is no tar archive"))?;
        let wanted = ["manifest.json", "index.json"]
            .map(|file| entries.iter().find(|entry| entry.trim_start_matches("./") == file));
        let entry =
            wanted.into_iter().flatten().next().with_context(|| {
                format!("{strange}, observed a tar archive with neither manifest.json nor index.json")
            })?;
        let mut extract = Command::new("tar");
        extract
            .args(["--extract", "--to-stdout", "--file"])
            .arg(path)
            .arg(entry);
        (
            entry.clone(),
            engine::run(&mut extract, patience::TRANSFER).await?.stdout,
        )
    };
    let json: Value = serde_json::from_slice(&text).with_context(|| format!("its {manifest} is no JSON"))?;
    let of_docker = json.as_array();
    let images = of_docker
        .or_else(|| json["manifests"].as_array())
        .with_context(|| format!("its {manifest} lists no images"))?;
    ensure!(!images.is_empty(), "it holds no image");
    let name = |image: &Value| {
        let names = image["RepoTags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let names = names.collect::<Vec<_>>().join(" = ");
        let others = [
            &image["annotations"]["io.containerd.image.name"],
            &image["annotations"]["org.opencontainers.image.ref.name"],
            &image["Config"],
            &image["digest"],
        ];
        let other = others.iter().find_map(|name| name.as_str()).unwrap_or("without a name");
        if names.is_empty() { other.to_owned() } else { names }
    };
    // The same image under several names is one; so are what a builder adds about it.
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for image in images {
        if image["annotations"]["vnd.docker.reference.type"].is_null() {
            let identity = if of_docker.is_some() {
                &image["Config"]
            } else {
                &image["digest"]
            };
            found.entry(identity.to_string()).or_insert_with(|| name(image));
        }
    }
    Ok(found.into_values().collect())
}

/// The engine's names, and the ids of what they name. Images without a name have one of their own.
async fn names(engine: &Engine) -> anyhow::Result<BTreeMap<String, String>> {
    let mut list = engine.command();
    list.args([
        "images",
        "--all",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.Repository}}:{{.Tag}}",
    ]);
    let lines = lines(&mut list).await?;
    let pairs = lines.iter().filter_map(|line| line.split_once(' ')).map(|(id, name)| {
        let id = format!("sha256:{}", id.trim_start_matches("sha256:"));
        let name = if name.contains("<none>") {
            id.clone()
        } else {
            name.to_owned()
        };
        (name, id)
    });
    Ok(pairs.collect())
}

/// The name with its tag.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

async fn remove_name(engine: &Engine, name: &str) -> anyhow::Result<()> {
    let mut remove = engine.command();
    remove.args(["rmi", name]);
    engine::run(&mut remove, patience::ENGINE)
        .await
        .with_context(|| format!("the name {name} cannot be removed"))?;
    Ok(())
}

/// The lines that a command prints.
async fn lines(command: &mut Command) -> anyhow::Result<Vec<String>> {
    let output = engine::run(command, patience::TRANSFER).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect())
}

fn folder() -> anyhow::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("sidecheck-image-");
    builder
        .tempdir()
        .context("no folder can be made for the image's archive")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{subject, with_tag};

    const ID: &str = "7f588167009c09774102ce84056c714d5d9cb2043e4b69837ba5696422ef870a";

    #[test]
    fn docker_and_podman_describe_the_same_image() {
        let config = json!({
            "User": "101", "ExposedPorts": {"8080/tcp": {}, "80/tcp": {}, "53/udp": {}}, "StopSignal": "SIGQUIT",
            "Entrypoint": ["/run"], "Cmd": null, "Labels": {"a": "b"},
        });
        let mut docker = json!({
            "Id": format!("sha256:{ID}"), "RepoDigests": ["nginx@sha256:1234"], "Architecture": "amd64", "Os": "linux",
            "Size": 5, "RootFS": {"Layers": ["sha256:a", "sha256:b"]}, "Config": config,
        });
        let mut podman = docker.clone();
        podman["Id"] = ID.into();
        docker["Config"]["Healthcheck"] = json!({"Test": ["CMD", "true"]});
        podman["Healthcheck"] = json!({"Test": ["CMD", "true"]});
        let docker = subject(&docker).expect("docker's");
        assert_eq!(docker, subject(&podman).expect("podman's"));
        assert_eq!(docker.reference, "localhost/sidecheck-subject/image:7f588167009c0977");
        assert_eq!((docker.digest.as_deref(), docker.layers), (Some("sha256:1234"), 2));
        assert_eq!(docker.defaults.exposed, [80, 8080]);
        assert!(docker.defaults.has_healthcheck && docker.defaults.cmd.is_empty());
        docker.fits("x86_64").expect("it fits");
        let error = docker.fits("arm64").expect_err("another processor").to_string();
        assert!(error.contains("linux/amd64, but linux/arm64 is needed"), "{error}");
    }

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        assert_eq!(with_tag("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(with_tag("localhost/a:v1"), "localhost/a:v1");
    }
}
