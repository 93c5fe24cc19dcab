//! Images and single containers of them, on the local engine, which `DOCKER_HOST` names. The images are those of `scripts/images`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sidecheck::cluster::engine::Engine;
use sidecheck::image::{Alone, Disposition, Exit, Subject};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The longest that a container may take to do what it was asked, and how often to look.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// A grace period that must not expire, and one that is meant to.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(1);

const AGENT: &str = "localhost/sidecheck/agent:v1";
const BUSYBOX: &str = "localhost/sidecheck/busybox:v1";
const NGINX: &str = "localhost/sidecheck/nginx:v1";

/// A Pod with one container.
fn pod(image: &str, fields: Value) -> Value {
    let mut container = json!({"name": "subject", "image": image});
    for (name, value) in fields.as_object().into_iter().flatten() {
        container[name] = value.clone();
    }
    json!({"containers": [container]})
}

async fn agent(statements: &[&str]) -> Result<Alone> {
    Alone::start(&pod(AGENT, json!({"args": statements})), "subject", &[]).await
}

async fn shell(script: &str, mut fields: Value) -> Result<Alone> {
    fields["command"] = json!(["sh", "-c", script]);
    Alone::start(&pod(BUSYBOX, fields), "subject", &[]).await
}

/// Waits until it has printed this.
async fn printed(alone: &Alone, text: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let output = alone.output().await?;
        if output.stdout.contains(text) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "expected {text}, observed {output:?}");
        sleep(LOOK).await;
    }
}

/// How it ends by itself, and all that it printed.
async fn end(alone: &Alone) -> Result<(Exit, String)> {
    let (exit, _) = alone.ended_within(PATIENCE).await?.context("it has not ended")?;
    Ok((exit, alone.output().await?.stdout))
}

/// Saves images with the engine.
fn save(folder: &Path, format: &[&str], images: &[&str]) -> Result<String> {
    let archive = folder.join("archive").display().to_string();
    let mut command = Engine::chosen()?.command().into_std();
    let status = command
        .arg("save")
        .args(format)
        .args(["--output", &archive])
        .args(images)
        .output()?;
    ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    Ok(archive)
}

#[tokio::test]
async fn an_image_is_found_by_its_name_and_described() -> Result<()> {
    let engine = Engine::chosen()?;
    let subject = Subject::obtain(NGINX).await?;
    assert_eq!((subject.given.as_str(), subject.os.as_str()), (NGINX, "linux"));
    assert_eq!(subject.defaults.exposed, [80]);
    assert_eq!(subject.defaults.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(subject.defaults.cmd, ["nginx", "-g", "daemon off;"]);
    assert!(subject.defaults.user.is_none() && !subject.defaults.has_healthcheck);
    assert!(subject.layers > 1 && subject.size > 1 << 20, "{subject:?}");
    subject.fits(std::env::consts::ARCH)?;
    assert!(subject.fits("s390x").is_err());

    assert!(engine.has_image(&subject.reference).await?);
    let by_id = Subject::obtain(&subject.id).await?;
    assert_eq!(by_id.reference, subject.reference.replace("/nginx:", "/image:"));
    for subject in [subject, by_id] {
        subject.remove_tag(&engine).await?;
        assert!(!engine.has_image(&subject.reference).await? && engine.has_image(NGINX).await?);
    }
    Ok(())
}

#[tokio::test]
async fn an_image_is_found_in_archives_and_folders() -> Result<()> {
    let engine = Engine::chosen()?;
    let named = Subject::obtain(AGENT).await?;
    let folder = TempDir::new()?;
    let mut formats: Vec<&[&str]> = vec![&[]];
    if engine.program() == "podman" {
        formats = vec![
            &["--format", "docker-archive"],
            &["--format", "oci-archive"],
            &["--format", "oci-dir"],
        ];
    }
    for format in formats {
        let archive = save(folder.path(), format, &[AGENT])?;
        let subject = Subject::obtain(&archive).await.with_context(|| format!("{format:?}"))?;
        assert_eq!(
            (&subject.id, &subject.defaults),
            (&named.id, &named.defaults),
            "{format:?}"
        );
        assert!(engine.has_image(AGENT).await?);
        assert!(!engine.has_image("localhost/archive").await?, "a name that nobody gave");
        std::fs::remove_file(&archive).or_else(|_| std::fs::remove_dir_all(&archive))?;
    }
    named.remove_tag(&engine).await?;
    assert!(engine.has_image(AGENT).await?);
    Ok(())
}

#[tokio::test]
async fn what_is_no_image_is_told() -> Result<()> {
    let folder = TempDir::new()?;
    let told = async |text: &str| format!("{:#}", Subject::obtain(text).await.expect_err(text));

    let text = told("localhost/sidecheck/none:v1").await;
    assert!(
        text.contains("no such archive, and") && text.contains("no registry gives it"),
        "{text}"
    );
    let text = told("./none.tar").await;
    assert!(text.contains("there is no image “./none.tar”"), "{text}");
    let text = told(&folder.path().display().to_string()).await;
    assert!(text.contains("no OCI layout"), "{text}");

    let file = folder.path().join("file");
    std::fs::write(&file, "no archive\n".repeat(200))?;
    let text = told(&file.display().to_string()).await;
    assert!(text.contains("observed a file that is no tar archive"), "{text}");
    let tar = folder.path().join("file.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&tar)
        .arg("-C")
        .arg(folder.path())
        .arg("file")
        .status()?;
    assert!(packed.success());
    let text = told(&tar.display().to_string()).await;
    assert!(text.contains("neither manifest.json nor index.json"), "{text}");

    let podman = Engine::chosen()?.program() == "podman";
    let several: &[&str] = if podman { &["--multi-image-archive"] } else { &[] };
    let archive = save(folder.path(), several, &[AGENT, BUSYBOX])?;
    let text = told(&archive).await;
    assert!(
        text.contains("observed 2") && text.contains(AGENT) && text.contains(BUSYBOX),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_program_that_handles_the_signal_ends_by_it() -> Result<()> {
    let alone = agent(&["say ready"]).await?;
    printed(&alone, "ready").await?;
    assert!(alone.running().await? && alone.exit().await?.is_none());
    let first = alone.first_process().await?.context("it runs")?;
    assert!(first.command.starts_with("/agent"), "{first:?}");
    // It takes signals from where they are held back.
    assert_eq!(first.disposition("SIGTERM")?, Disposition::Blocked);
    let stopped = alone.stop("SIGTERM", LONG).await?;
    assert_eq!((stopped.exit.code, stopped.killed), (0, false));
    assert!(stopped.after < LONG && !alone.running().await?);
    alone.signal("SIGTERM").await?;
    assert!(alone.processes().await?.is_empty() && alone.first_process().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_program_that_ignores_the_signal_is_killed() -> Result<()> {
    let alone = shell("trap true USR1; trap '' USR2; echo ready; sleep 1000; true", json!({})).await?;
    printed(&alone, "ready").await?;
    let first = alone.first_process().await?.context("it runs")?;
    let found = ["TERM", "USR1", "12"].map(|signal| first.disposition(signal).ok());
    let expected = [Disposition::Default, Disposition::Caught, Disposition::Ignored];
    assert_eq!(found, expected.map(Some));
    let stopped = alone.stop("TERM", SHORT).await?;
    assert_eq!((stopped.exit.code, stopped.killed), (137, true));
    assert!(stopped.after >= SHORT && !stopped.exit.oom);
    Ok(())
}

#[tokio::test]
async fn a_container_that_ends_at_once_tells_its_code() -> Result<()> {
    let alone = shell("echo said; echo wrong >&2; exit 3", json!({})).await?;
    let (exit, stdout) = end(&alone).await?;
    assert_eq!((exit.code, stdout.as_str()), (3, "said\n"));
    assert_eq!(alone.output().await?.stderr, "wrong\n");
    assert!(alone.listening().await?.is_empty() && alone.usage().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_and_leaves_nothing() -> Result<()> {
    let folder = TempDir::new()?;
    let marker = folder
        .path()
        .file_name()
        .context("a name")?
        .to_string_lossy()
        .into_owned();
    let spec = pod(AGENT, json!({"command": [format!("/{marker}")]}));
    let error = Alone::start(&spec, "subject", &[]).await.expect_err("no program");
    assert!(format!("{error:#}").contains(&marker), "{error:#}");
    let list = Engine::chosen()?
        .command()
        .into_std()
        .args(["ps", "--all", "--no-trunc"])
        .output()?;
    assert!(!String::from_utf8_lossy(&list.stdout).contains(&marker));
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told() -> Result<()> {
    let spec = pod("localhost/sidecheck/none:v1", json!({}));
    let error = Alone::start(&spec, "subject", &[]).await.expect_err("no image");
    assert!(
        error.to_string().contains("has no image localhost/sidecheck/none:v1"),
        "{error:#}"
    );
    Ok(())
}

#[tokio::test]
async fn ports_are_seen_from_outside() -> Result<()> {
    let alone = agent(&["serve 8080", "sink 127.0.0.1:9000", "call http://127.0.0.1:8080/"]).await?;
    printed(&alone, r#""event":"answer""#).await?;
    assert_eq!(alone.listening().await?.into_iter().collect::<Vec<_>>(), [8080, 9000]);
    Ok(())
}

#[tokio::test]
async fn zombies_and_usage_are_seen_from_outside() -> Result<()> {
    // The second sleep becomes the parent of the first, and never asks how it ended.
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo ready; sleep 5 & exec sleep 1000";
    let alone = shell(script, json!({"securityContext": {"runAsUser": 1234}})).await?;
    printed(&alone, "ready").await?;
    let start = Instant::now();
    loop {
        let processes = alone.processes().await?;
        if processes.iter().any(|process| process.state == 'Z') {
            assert_eq!(
                (processes.len(), processes[0].pid, processes[0].uid),
                (2, 1, 1234),
                "{processes:?}"
            );
            assert_eq!(processes[0].command, "sleep 1000");
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "expected a zombie, observed {processes:?}");
        sleep(LOOK).await;
    }
    let usage = alone.usage().await?.context("it runs")?;
    assert!(usage.cpu > Duration::ZERO && usage.memory > 0, "{usage:?}");
    Ok(())
}

#[tokio::test]
async fn long_output_is_cut() -> Result<()> {
    let alone = shell(
        "printf 'a\\377b\\n'; head -c 1500000 /dev/zero | tr '\\0' y | fold -w 1000; echo end >&2",
        json!({}),
    )
    .await?;
    end(&alone).await?;
    let output = alone.output().await?;
    assert!(output.cut && output.stdout.starts_with("a\u{fffd}b\nyyy"));
    assert!(
        (1 << 20..=(1 << 20) + 2).contains(&output.stdout.len()),
        "{}",
        output.stdout.len()
    );
    assert_eq!(output.stderr, "end\n");
    Ok(())
}

#[tokio::test]
async fn the_security_context_holds() -> Result<()> {
    let script = "touch /file 2>/dev/null || echo root-ro; touch /tmp/file 2>/dev/null || echo tmp-ro; id -u; id -g; pwd; \
                  grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status; ls /sys/class/net";
    let security = json!({
        "readOnlyRootFilesystem": true, "runAsUser": 1234, "runAsGroup": 55, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    });
    let alone = shell(script, json!({"securityContext": security, "workingDir": "/usr/local"})).await?;
    let (_, stdout) = end(&alone).await?;
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let expected = [
        "root-ro",
        "tmp-ro",
        "1234",
        "55",
        "/usr/local",
        "CapBnd:",
        "0000000000000400",
        "NoNewPrivs:",
        "1",
        "lo",
    ];
    assert_eq!(words, expected);
    Ok(())
}

#[tokio::test]
async fn volumes_and_variables_are_given() -> Result<()> {
    let script = "cat /etc/app/a.conf /etc/one; ls /etc/app; echo new > /data/file && cat /again/file; \
                  touch /etc/app/b 2>/dev/null || echo ro; echo $GREETING";
    let mut spec = pod(
        BUSYBOX,
        json!({
            "command": ["sh", "-c", script],
            "env": [{"name": "NAME", "value": "you"}, {"name": "GREETING", "value": "hello $(NAME)"}],
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/app"},
                {"name": "all", "mountPath": "/etc/one", "subPath": "two"},
                {"name": "data", "mountPath": "/data"},
                {"name": "data", "mountPath": "/again", "readOnly": true},
            ],
            "securityContext": {"runAsUser": 1234},
        }),
    );
    spec["volumes"] = json!([
        {"name": "config", "configMap": {"name": "app", "items": [{"key": "one", "path": "a.conf"}]}},
        {"name": "all", "configMap": {"name": "app"}},
        {"name": "data", "emptyDir": {}},
    ]);
    let map = json!({"metadata": {"name": "app"}, "data": {"one": "first\n", "two": "second\n"}});
    let alone = Alone::start(&spec, "subject", &[map]).await?;
    let (_, stdout) = end(&alone).await?;
    assert_eq!(stdout, "first\nsecond\na.conf\nnew\nro\nhello you\n");

    let error = Alone::start(&spec, "subject", &[]).await.expect_err("no ConfigMap");
    assert!(error.to_string().contains("there is no ConfigMap app"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn too_much_memory_is_noticed() -> Result<()> {
    let limits = json!({"resources": {"limits": {"memory": "16Mi", "cpu": "500m"}}});
    let alone = shell("exec tail -c 200000000 /dev/zero", limits).await?;
    let (exit, _) = end(&alone).await?;
    assert_eq!(exit, Exit { code: 137, oom: true });
    Ok(())
}
