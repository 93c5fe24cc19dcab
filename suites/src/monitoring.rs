//! A sidecar polls main at localhost.

use sidecheck::agent;
use sidecheck::pod::Line;
use sidecheck::{Container, ScenarioPod, Verdict};

use crate::properties::WORKS;

crate::checks! {
    "monitoring"
    shared { status_file_is_seen_at_once }
    last { poller_sees_main_come_and_go }
    own {}
}

/// What main serves, as the poller prints it.
const ANSWER: &str = "answer The page of the app";

/// How a poll ended. One that found no address for localhost says nothing: the kubelet rewrites the Pod's /etc/hosts in
/// place whenever it starts a container, and the file is empty for an instant.
fn poll(line: &Line) -> Option<&str> {
    let (number, result) = line.text.strip_prefix("poll ")?.split_once(' ')?;
    number.parse::<u64>().ok()?;
    (result != "unresolved").then_some(result)
}

/// The second poll from now on: the first one may have begun before.
async fn next_poll(poller: &Container, label: &'static str, wanted: &str) -> Verdict {
    let mut polls = 0;
    let second = |line: &Line| {
        let result = poll(line)?.to_owned();
        polls += 1;
        (polls == 2).then_some(result)
    };
    let expect = poller.expect(label).after(poller.line_count()?);
    let seen = expect.prints("two polls more", second).await?;
    poller
        .expect(label)
        .holds(seen.starts_with(wanted), format!("“{wanted}”"), seen)
}

/// The poller gets an answer.
async fn works(pod: &ScenarioPod) -> Verdict {
    serves(pod).await?;
    next_poll(&pod.sidecar(), WORKS, ANSWER).await
}

/// Waits until main serves; a container is ready before its program is.
async fn serves(pod: &ScenarioPod) -> anyhow::Result<()> {
    let http = pod.http(8080).await?;
    let given = pod
        .main()
        .given()
        .answers(&http, "/", "that main serves", |_| true)
        .await;
    given.map(drop)
}

async fn end_main(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.main().end_program("python3", "KILL").await
}

async fn end_sidecar(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().end_program("poll", "TERM").await
}

/// Main crashes, is kept from serving for a while, and comes back; what the poller prints shows it.
async fn poller_sees_main_come_and_go(pod: &ScenarioPod) -> Verdict {
    let (main, poller) = (pod.main(), pod.sidecar());
    let before = main.run()?;
    next_poll(&poller, "answers while main runs", ANSWER).await?;
    main.arrange(agent::write("/gate/closed", "yes")).await?;
    end_main(pod).await?;
    main.run_ended(&before).await?;
    next_poll(&poller, "refusals while main is down", "refused").await?;
    poller.arrange(agent::remove("/gate/closed")).await?;
    main.given().restarts(&before).await?;
    serves(pod).await?;
    next_poll(&poller, "answers after main's restart", ANSWER).await
}

/// As soon as the poller has printed a poll, main serves the file with it.
async fn status_file_is_seen_at_once(pod: &ScenarioPod) -> Verdict {
    let (main, poller) = (pod.main(), pod.sidecar());
    let given = poller.given().after(poller.line_count()?);
    let line = given
        .prints("another poll", |line| poll(line).map(|_| line.text.to_string()))
        .await?;
    let expect = main.expect("main serves what the poller wrote");
    let what = format!("“{line}” in what main serves");
    expect
        .answers_at_once(&pod.http(8080).await?, "/status/polls", &what, |answer| {
            answer.has_line(&line)
        })
        .await?;
    Ok(())
}
