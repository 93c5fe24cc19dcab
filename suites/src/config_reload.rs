//! A sidecar notices that main's configuration has changed and has main read it again.

use std::time::Instant;

use serde_json::{Value, json};
use sidecheck::agent;
use sidecheck::pod::{Answer, Http, Line};
use sidecheck::timeline::Event;
use sidecheck::{Container, Finding, ScenarioPod, Verdict, patience};

use crate::properties::{WORKS, content, is_read_only};

crate::checks! {
    "config-reload"
    shared {
        config_mount_is_read_only,
        reload_takes_effect,
        no_request_fails_during_the_reload,
        subpath_mounts_never_update,
    }
    last {}
    own {
        reload_over_http [Classic, Native],
        naive_reload_does_not_reach_main [Classic, Native],
        updates_arrive_through_the_data_swap [Classic, Native],
    }
}

/// What main says at first.
const AT_FIRST: &str = "Configuration Reload Demo";

/// What it says after each update.
const UPDATES: [&str; 3] = [
    "Updated Configuration Loaded",
    "Second Update Loaded",
    "Third Update Loaded",
];

/// An update is noticed by the sidecar and served by main.
async fn works(pod: &ScenarioPod) -> Verdict {
    let (main, http) = (pod.main(), pod.http(80).await?);
    let serves = |answer: &Answer| answer.status == 200;
    let now = main.given().answers(&http, "/", "that main serves", serves).await?;
    let other = |text: &&str| now.body.trim_end() != *text;
    let text = UPDATES.into_iter().find(other).unwrap_or(AT_FIRST);
    watches(&pod.sidecar()).await?;
    project(pod, nginx_says(text)).await?;
    let expect = main.expect(WORKS).within(patience::PROJECTION);
    expect.answers(&http, "/", text, says(text)).await?;
    Ok(())
}

async fn end_main(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().arrange(agent::signal("nginx", "QUIT")).await.map(drop)
}

async fn end_sidecar(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().end_program("watch-config", "TERM").await
}

/// HUP from a sidecar that sees main's process: every update is served, nothing restarts.
async fn reload_takes_effect(pod: &ScenarioPod) -> Verdict {
    every_update_takes_effect(pod, 80, nginx_says).await
}

/// The other correct form: main rereads its file when the sidecar calls its endpoint.
async fn reload_over_http(pod: &ScenarioPod) -> Verdict {
    every_update_takes_effect(pod, 8080, |text| json!({"text": text})).await
}

/// Four clients ask all the time, before, during and after three reloads: every one of their requests is answered.
async fn no_request_fails_during_the_reload(pod: &ScenarioPod) -> Verdict {
    let (client, main, http) = (pod.other("client").main(), pod.main(), pod.http(80).await?);
    let load = agent::load(format!("http://{}/", pod.ip()?), 4);
    client
        .arrange(load.every(std::time::Duration::from_millis(50)).within(patience::CALL))
        .await?;
    for text in UPDATES {
        more_requests(&client).await?;
        let reload = update(pod, nginx_says(text)).await?;
        more_requests(&client).await?;
        let failure = client.events()?.into_iter().find(|event| event.event == "load-failure");
        let observed = failure
            .as_ref()
            .map_or_else(String::new, |failure| format!("{failure} after {reload}"));
        client
            .expect("no request fails")
            .holds(failure.is_none(), "no failed request", observed)?;
        main.given().answers(&http, "/", text, says(text)).await?;
    }
    let load = client.ask(agent::load_stop()).await?;
    let none = load.number("failed") == Some(0);
    client
        .expect("no request fails")
        .holds(none, "no failed request", load.to_string())
}

/// `nginx -s reload` in a sidecar that does not share main's processes fails, and main goes on with the old text.
async fn naive_reload_does_not_reach_main(pod: &ScenarioPod) -> Verdict {
    let (main, http) = (pod.main(), pod.http(80).await?);
    main.given().answers(&http, "/", AT_FIRST, says(AT_FIRST)).await?;
    let with = pod.container("with-nginx");
    with.given().records("watching", |_| true).await?;
    let without = update(pod, nginx_says(UPDATES[0])).await?;
    let with = reload(&with, 0).await?;
    for reload in [without, with] {
        let reloader = pod.container(&reload.container);
        reloader
            .expect("its command fails")
            .holds(!succeeded(&reload), "a failure", reload.to_string())?;
    }
    let same = main.expect("main goes on with the old text");
    same.answers_at_once(&http, "/", AT_FIRST, says(AT_FIRST)).await?;
    Ok(())
}

/// A reader that follows `..data` once meets both files old or both new, at each of three updates; each of them is one swap of the link.
async fn updates_arrive_through_the_data_swap(pod: &ScenarioPod) -> Verdict {
    let (main, reader) = (pod.main(), pod.sidecar());
    main.given().records("watching", |_| true).await?;
    for (number, text) in ["zero", "one", "two", "three"].iter().enumerate() {
        if number > 0 {
            project(pod, json!({"first": text, "second": text})).await?;
        }
        let saw = nth(&reader, "saw", number).await?;
        let together = saw.text("text").ends_with(&format!("{text} {text}"));
        reader
            .expect("both files of one update")
            .holds(together, format!("{text} in both"), saw.to_string())?;
    }
    let is_swap = |event: &Event| event.text("kind") == "moved-to" && event.text("file").ends_with("..data");
    let mut swaps = 0;
    let three = |line: &Line| {
        swaps += usize::from(line.event.as_deref().is_some_and(is_swap));
        (swaps == 3).then_some(())
    };
    main.given().prints("three swaps of ..data", three).await?;
    // By now, any other change of the folder would have been recorded.
    main.arrange(agent::say("later", "")).await?;
    main.given().records("later", |_| true).await?;
    let swaps = main.events()?.iter().filter(|event| is_swap(event)).count();
    let states = reader.events()?.iter().filter(|event| event.event == "saw").count();
    reader
        .expect("both files of one update")
        .holds(states == 4, "4 states", format!("{states} states"))?;
    main.expect("one swap for each update")
        .holds(swaps == 3, "3 swaps", format!("{swaps} swaps"))
}

/// By the time that main has the new file in its folder, twice, the one that it mounts by subPath is still the old one.
async fn subpath_mounts_never_update(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    let (folder, alone) = ("/etc/nginx/conf.d/default.conf", "/alone/default.conf");
    let old = content(&main, alone).await?;
    // What cannot be read does not change either.
    if !old.contains("return 200") {
        return Err(anyhow::anyhow!("{alone} does not have what the ConfigMap says: {old}").into());
    }
    for text in &UPDATES[..2] {
        update(pod, nginx_says(text)).await?;
        let new = content(&main, folder).await?;
        main.expect("the folder has the new text")
            .holds(new.contains(text), *text, new)?;
        let now = content(&main, alone).await?;
        main.expect("the subPath has the old text")
            .holds(now == old, old.clone(), now)?;
    }
    Ok(())
}

/// Neither container can write to the ConfigMap's files, nor make or remove one.
async fn config_mount_is_read_only(pod: &ScenarioPod) -> Verdict {
    for (container, label, folder) in [
        (pod.main(), "main cannot change it", "/etc/nginx/conf.d"),
        (pod.sidecar(), "the sidecar cannot change it", "/config"),
    ] {
        let file = format!("{folder}/default.conf");
        let changes = [
            agent::write(format!("{folder}/new"), "mine"),
            agent::write(&file, "mine"),
            agent::remove(&file),
        ];
        is_read_only(&container, label, &changes).await?;
    }
    Ok(())
}

/// The ConfigMap's data with which nginx answers `text`.
fn nginx_says(text: &str) -> Value {
    json!({"default.conf": format!("server {{ listen 80; default_type text/plain; return 200 \"{text}\\n\"; }}\n")})
}

/// Whether an answer is exactly this text.
fn says(text: &str) -> impl Fn(&Answer) -> bool {
    move |answer| answer.status == 200 && answer.body.trim_end() == text
}

/// Three updates in a row are served, and neither container restarts.
async fn every_update_takes_effect(pod: &ScenarioPod, port: u16, data: impl Fn(&str) -> Value) -> Verdict {
    let (http, main, sidecar) = (pod.http(port).await?, pod.main(), pod.sidecar());
    main.given().answers(&http, "/", AT_FIRST, says(AT_FIRST)).await?;
    let before = [main.run()?, sidecar.run()?];
    for text in UPDATES {
        let effect = takes_effect(pod, &http, data(text), text).await;
        for (container, before) in [&main, &sidecar].into_iter().zip(&before) {
            let after = container.run();
            let same = after.as_ref().is_ok_and(|after| after == before);
            let expect = container.expect("no container restarts").about_restarts();
            expect.holds(same, format!("{before:?}"), format!("it was restarted: {after:?}"))?;
        }
        effect?;
    }
    Ok(())
}

/// An update of the ConfigMap is noticed by the sidecar, whose command succeeds, and main answers `text`.
async fn takes_effect(pod: &ScenarioPod, http: &Http, data: Value, text: &str) -> Verdict {
    let begun = Instant::now();
    let reload = update(pod, data).await?;
    pod.sidecar()
        .expect("its command succeeds")
        .holds(succeeded(&reload), "a success", reload.to_string())?;
    pod.main()
        .expect("the new text is served")
        .answers(http, "/", text, says(text))
        .await?;
    pod.measured("time to effect", begun.elapsed());
    Ok(())
}

/// Changes the ConfigMap and waits until the sidecar has noticed and its reload command has ended.
async fn update(pod: &ScenarioPod, data: Value) -> Result<Event, Finding> {
    let sidecar = pod.sidecar();
    watches(&sidecar).await?;
    let before = sidecar.events()?.iter().filter(|event| event.event == "reload").count();
    project(pod, data).await?;
    reload(&sidecar, before).await
}

/// Waits until the sidecar's present run looks for changes.
async fn watches(sidecar: &Container) -> anyhow::Result<()> {
    let run = sidecar.run()?.restarts;
    let watching = |line: &Line| (line.run == run && line.event.as_ref()?.event == "watching").then_some(());
    sidecar.given().prints("the event “watching”", watching).await
}

/// Changes the ConfigMap and has the kubelet look at it.
async fn project(pod: &ScenarioPod, data: Value) -> anyhow::Result<()> {
    pod.patch("v1", "ConfigMap", "text", &json!({"data": data})).await?;
    pod.nudge().await
}

/// The sidecar's reload number `before` + 1; its text says how the command ended and what it printed.
async fn reload(sidecar: &Container, before: usize) -> Result<Event, Finding> {
    nth(sidecar, "reload", before).await
}

/// The event of that name that has `before` others before it: an update has arrived.
async fn nth(container: &Container, name: &str, before: usize) -> Result<Event, Finding> {
    let mut seen = 0;
    let find = |line: &Line| {
        let event = line.event.as_deref().filter(|event| event.event == name)?;
        seen += 1;
        (seen > before).then(|| event.clone())
    };
    let expect = container.expect("the update arrives").within(patience::PROJECTION);
    expect
        .prints(&format!("the event “{name}”, number {}", before + 1), find)
        .await
}

/// Whether the sidecar's reload command ended with code 0.
fn succeeded(reload: &Event) -> bool {
    reload.text("text").split_whitespace().next() == Some("0")
}

/// Waits until the client's load has sent more requests than now, or one has failed.
async fn more_requests(client: &Container) -> anyhow::Result<()> {
    let sent = |event: &Event| (event.event == "load-progress").then(|| event.number("sent")).flatten();
    let before = client.events()?.iter().filter_map(sent).max().unwrap_or_default();
    let more = |line: &Line| {
        let event = line.event.as_deref()?;
        (event.event == "load-failure" || sent(event).is_some_and(|sent| sent > before)).then_some(())
    };
    client.given().prints("more requests", more).await
}
