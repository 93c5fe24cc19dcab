//! A sidecar notices that main's configuration has changed and has main read it again.

use std::time::Instant;

use rstest::rstest;
use serde_json::{Value, json};
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::pod::Http;
use sidecheck::timeline::Event;
use sidecheck::{Container, Finding, Outcome, ScenarioPod, Verdict, check, eventually, expect, not_met, patience};

use crate::properties;

/// What main says at first.
const AT_FIRST: &str = "Configuration Reload Demo";

/// What it says after each update.
const UPDATES: [&str; 3] = [
    "Updated Configuration Loaded",
    "Second Update Loaded",
    "Third Update Loaded",
];

/// HUP from a sidecar that sees main's process: every update is served, nothing restarts.
#[rstest]
#[tokio::test]
async fn reload_takes_effect(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/reload-takes-effect", shape, async |pod| {
        every_update_takes_effect(pod, 80, nginx_says).await
    })
    .await
}

/// The other correct form: main rereads its file when the sidecar calls its endpoint.
#[rstest]
#[tokio::test]
async fn reload_over_http(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/reload-over-http", shape, async |pod| {
        every_update_takes_effect(pod, 8080, |text| json!({"text": text})).await
    })
    .await
}

/// Four clients ask all the time, before, during and after three reloads: every one of their requests is answered.
#[rstest]
#[tokio::test]
async fn no_request_fails_during_the_reload(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/no-request-fails-during-the-reload", shape, async |pod| {
        let (client, http) = (pod.other("client").main(), pod.http(80).await?);
        serves(pod, &http, AT_FIRST).await?;
        client
            .ask(&format!(
                "load http://{}/ clients 4 every 50ms within {}s",
                pod.ip()?,
                patience::CALL.as_secs()
            ))
            .await?;
        for text in UPDATES {
            more_requests(&client).await?;
            let reload = update(pod, nginx_says(text)).await?;
            more_requests(&client).await?;
            let failure = client.events().into_iter().find(|event| event.event == "load-failure");
            expect(
                &client,
                failure.is_none(),
                "no failed request",
                failure.map_or_else(String::new, |failure| format!("{failure} after {reload}")),
            )?;
            serves(pod, &http, text).await?;
        }
        let load = client.ask("load-stop").await?;
        expect(
            &client,
            load.number("failed") == Some(0),
            "no failed request",
            load.to_string(),
        )
    })
    .await
}

/// `nginx -s reload` in a sidecar that does not share main's processes fails, and main goes on with the old text.
#[rstest]
#[tokio::test]
async fn naive_reload_does_not_reach_main(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/naive-reload-does-not-reach-main", shape, async |pod| {
        let http = pod.http(80).await?;
        serves(pod, &http, AT_FIRST).await?;
        let with_nginx = pod.container("reloader-with-nginx");
        watching(&with_nginx).await?;
        let without = update(pod, nginx_says(UPDATES[0])).await?;
        let with = reload(&with_nginx, 0).await?;
        for (reload, reason) in [(without, "nginx: not found"), (with, "nginx.pid")] {
            let reloader = pod.container(&reload.container);
            let observed = format!("{}: {}", reloader.name(), reload.text("text"));
            let fails = !succeeded(&reload) && observed.contains(reason);
            expect(&reloader, fails, format!("its command to fail: {reason}"), observed)?;
        }
        let answer = http.get("/").await?.body;
        let same = answer.trim_end() == AT_FIRST;
        expect(&pod.main(), same, format!("main to go on with “{AT_FIRST}”"), answer)
    })
    .await
}

/// A reader that follows `..data` once meets both files old or both new, at each of three updates.
#[rstest]
#[tokio::test]
async fn updates_arrive_through_the_data_swap(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check(
        "config-reload/updates-arrive-through-the-data-swap",
        shape,
        async |pod| {
            let (main, reader) = (pod.main(), pod.sidecar());
            main.records("watching", |_| true).await?;
            for (number, text) in ["zero", "one", "two", "three"].iter().enumerate() {
                if number > 0 {
                    project(pod, json!({"first": text, "second": text})).await?;
                }
                let saw = sees(&reader, number).await?;
                let together = saw.text("text").ends_with(&format!("{text} {text}"));
                expect(&reader, together, format!("{text} in both files"), saw.to_string())?;
            }
            let (swaps, seen) = (swaps(&main, 3).await?, all_seen(&reader).len());
            let observed = format!("{swaps} swaps, {seen} states");
            expect(&reader, (swaps, seen) == (3, 4), "3 swaps, 4 states", observed)
        },
    )
    .await
}

/// The sidecar has the new file in its folder, main still serves the old one that was mounted by subPath.
#[rstest]
#[tokio::test]
async fn subpath_mounts_never_update(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/subpath-mounts-never-update", shape, async |pod| {
        let http = pod.http(80).await?;
        serves(pod, &http, AT_FIRST).await?;
        let seen = update(pod, json!({"index.html": UPDATES[0]})).await?;
        expect(
            &pod.sidecar(),
            seen.text("text").contains(UPDATES[0]),
            UPDATES[0],
            seen.to_string(),
        )?;
        let answer = http.get("/").await?.body;
        expect(&pod.main(), answer == AT_FIRST, AT_FIRST, answer)
    })
    .await
}

/// One network for nginx and its reloader, another one for the client.
#[rstest]
#[tokio::test]
async fn containers_share_one_ip(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/containers-share-one-ip", shape, async |pod| {
        properties::share_one_ip(pod, &pod.other("client")).await
    })
    .await
}

/// The reloader reaches nginx at localhost and nginx's container the reloader; the client needs the Pod's IP.
#[rstest]
#[tokio::test]
async fn localhost_both_ways(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/localhost-both-ways", shape, async |pod| {
        properties::gets(&pod.sidecar(), "http://localhost:80/", AT_FIRST).await?;
        properties::gets(&pod.main(), "http://localhost:8081/", "reloader").await?;
        let client = pod.other("client").main();
        properties::gets(&client, &format!("http://{}/", pod.ip()?), AT_FIRST).await?;
        properties::is_refused(&client, "http://localhost:80/").await
    })
    .await
}

/// Neither container can write to the ConfigMap's files.
#[rstest]
#[tokio::test]
async fn config_mount_is_read_only(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/config-mount-is-read-only", shape, async |pod| {
        for (container, folder) in [(pod.main(), "/etc/nginx/conf.d"), (pod.sidecar(), "/config")] {
            properties::is_read_only(&container, &format!("write {folder}/default.conf mine")).await?;
        }
        Ok(())
    })
    .await
}

/// A file of main's is read by the sidecar, and a file of the sidecar's by main.
#[rstest]
#[tokio::test]
async fn shared_volume_both_ways(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/shared-volume-both-ways", shape, async |pod| {
        for (writer, reader) in [(pod.main(), pod.sidecar()), (pod.sidecar(), pod.main())] {
            let file = format!("/shared/from-{}", writer.name());
            let line = format!("by {}", writer.name());
            properties::sees_at_once((&writer, &file), (&reader, &file), &line).await?;
        }
        Ok(())
    })
    .await
}

/// The reloader crashes; main goes on undisturbed, and the next update is served.
#[rstest]
#[tokio::test]
async fn reloader_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/reloader-restarts-alone", shape, async |pod| {
        let (http, main, reloader) = (pod.http(80).await?, pod.main(), pod.sidecar());
        watching(&reloader).await?;
        serves(pod, &http, AT_FIRST).await?;
        properties::restarts_alone(&reloader, &main, async || main.signal_program("sh", "KILL").await).await?;
        takes_effect(pod, &http, nginx_says(UPDATES[0]), UPDATES[0]).await
    })
    .await
}

/// nginx is ended and starts again; the reloader goes on undisturbed, and has the new nginx serve the next update.
#[rstest]
#[tokio::test]
async fn main_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/main-restarts-alone", shape, async |pod| {
        let (http, main, reloader) = (pod.http(80).await?, pod.main(), pod.sidecar());
        watching(&reloader).await?;
        serves(pod, &http, AT_FIRST).await?;
        properties::restarts_alone(&main, &reloader, async || {
            reloader.signal_program("nginx", "QUIT").await
        })
        .await?;
        serves(pod, &http, AT_FIRST).await?;
        takes_effect(pod, &http, nginx_says(UPDATES[0]), UPDATES[0]).await
    })
    .await
}

/// nginx is told by the signal that its image names, the reloader by SIGTERM.
#[rstest]
#[tokio::test]
async fn sigterm_reaches_every_container(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("config-reload/sigterm-reaches-every-container", shape, async |pod| {
        let (main, reloader) = (pod.main(), pod.sidecar());
        properties::deleted(pod).await?;
        properties::nginx_was_told(&main)?;
        properties::recorded(&reloader, "sigterm").map(drop)
    })
    .await
}

/// Deleted, the Pod ends nginx first, then the reloader.
#[rstest]
#[tokio::test]
async fn reloader_ends_after_main(#[values(Native)] shape: Shape) -> Outcome {
    check("config-reload/reloader-ends-after-main", shape, async |pod| {
        properties::sidecar_is_ended_last(pod).await
    })
    .await
}

/// The ConfigMap's data with which nginx answers `text`.
fn nginx_says(text: &str) -> Value {
    json!({"default.conf": format!("server {{ listen 80; default_type text/plain; return 200 \"{text}\\n\"; }}\n")})
}

/// Three updates in a row are served, and neither container restarts.
async fn every_update_takes_effect(pod: &ScenarioPod, port: u16, data: impl Fn(&str) -> Value) -> Verdict {
    let (http, main, sidecar) = (pod.http(port).await?, pod.main(), pod.sidecar());
    serves(pod, &http, AT_FIRST).await?;
    let before = [main.run()?, sidecar.run()?];
    for text in UPDATES {
        let effect = takes_effect(pod, &http, data(text), text).await;
        for (container, before) in [&main, &sidecar].into_iter().zip(&before) {
            let after = container.run();
            let same = after.as_ref().is_ok_and(|after| after == before);
            expect(
                container,
                same,
                format!("{before:?}"),
                format!("it was restarted: {after:?}"),
            )?;
        }
        effect?;
    }
    Ok(())
}

/// An update of the ConfigMap is noticed by the sidecar, whose command succeeds, and main answers `text`.
async fn takes_effect(pod: &ScenarioPod, http: &Http, data: Value, text: &str) -> Verdict {
    let begun = Instant::now();
    let reload = update(pod, data).await?;
    if !succeeded(&reload) {
        let observed = format!("{reload}; main answers {:?}", http.get("/").await?.body);
        return Err(not_met(&pod.sidecar(), "its reload command to succeed", observed));
    }
    serves(pod, http, text).await?;
    pod.measured("time to effect", begun.elapsed());
    Ok(())
}

/// Changes the ConfigMap and waits until the sidecar has noticed and its reload command has ended.
async fn update(pod: &ScenarioPod, data: Value) -> Result<Event, Finding> {
    let sidecar = pod.sidecar();
    watching(&sidecar).await?;
    let before = sidecar.events().iter().filter(|event| event.event == "reload").count();
    project(pod, data).await?;
    reload(&sidecar, before).await
}

/// Changes the ConfigMap and has the kubelet look at it.
async fn project(pod: &ScenarioPod, data: Value) -> anyhow::Result<()> {
    pod.patch("v1", "ConfigMap", "text", &json!({"data": data})).await?;
    pod.nudge().await
}

/// Waits until the sidecar's present run looks for changes.
async fn watching(sidecar: &Container) -> Verdict {
    let run = sidecar.run()?.restarts;
    sidecar
        .prints("the event “watching”", |printed| {
            let mut lines = printed.lines.iter().filter(|line| line.restarts == run);
            lines
                .any(|line| Event::parse(sidecar.name(), &line.text).is_some_and(|event| event.event == "watching"))
                .then_some(())
        })
        .await
}

/// The sidecar's reload number `before` + 1; its text says how the command ended and what it printed.
async fn reload(sidecar: &Container, before: usize) -> Result<Event, Finding> {
    recorded(sidecar, "reload", before).await
}

/// State number `before` + 1 of the files that the reader has met.
async fn sees(reader: &Container, before: usize) -> Result<Event, Finding> {
    recorded(reader, "saw", before).await
}

/// All states of the files that the reader has met.
fn all_seen(reader: &Container) -> Vec<Event> {
    reader
        .events()
        .into_iter()
        .filter(|event| event.event == "saw")
        .collect()
}

/// Waits until `..data` was exchanged that often; returns how often it was.
async fn swaps(watcher: &Container, count: usize) -> Result<usize, Finding> {
    let swap = |event: &Event| event.text("kind") == "moved-to" && event.text("file").ends_with("..data");
    watcher
        .prints(&format!("{count} swaps of ..data"), |printed| {
            let events = printed.events(watcher.name());
            let swaps = events.iter().filter(|event| swap(event)).count();
            (swaps >= count).then_some(swaps)
        })
        .await
}

/// The event of that name that has `before` others before it.
async fn recorded(container: &Container, name: &str, before: usize) -> Result<Event, Finding> {
    container
        .prints_within(
            patience::PROJECTION,
            &format!("the event “{name}”, number {}", before + 1),
            |printed| {
                let events = printed.events(container.name()).into_iter();
                events.filter(|event| event.event == name).nth(before)
            },
        )
        .await
}

/// Whether the sidecar's reload command ended with code 0.
fn succeeded(reload: &Event) -> bool {
    reload.text("text").split_whitespace().next() == Some("0")
}

/// Waits until main answers `text`.
async fn serves(pod: &ScenarioPod, http: &Http, text: &str) -> Verdict {
    eventually(
        &pod.main(),
        &format!("the answer “{text}”"),
        patience::REACTION,
        async || {
            Ok(match http.get("/").await {
                Ok(answer) if answer.body.trim_end() == text => Ok(()),
                Ok(answer) => Err(format!("status {}, {:?}", answer.status, answer.body)),
                Err(error) => Err(format!("{error:#}")),
            })
        },
    )
    .await
}

/// Waits until the client's load has sent at least a hundred requests more, or one has failed.
async fn more_requests(client: &Container) -> Verdict {
    let sent = |event: &Event| (event.event == "load-progress").then(|| event.number("sent")).flatten();
    let before = client.events().iter().filter_map(sent).max().unwrap_or_default();
    client
        .prints("more requests", |printed| {
            let events = printed.events(client.name());
            let failed = events.iter().any(|event| event.event == "load-failure");
            (failed || events.iter().filter_map(sent).any(|sent| sent > before)).then_some(())
        })
        .await
}
