//! A sidecar polls main at localhost.

use rstest::rstest;
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::pod::Printed;
use sidecheck::{Container, Finding, Outcome, check, expect};

use crate::properties;

/// What main serves in the fixtures.
const PAGE: &str = "The page of the app";

/// How each poll ended. One that found no address for localhost says nothing: for each container that it starts, the kubelet writes the
/// Pod's /etc/hosts anew, in place, and for an instant that is empty.
fn polls(printed: &Printed) -> Vec<String> {
    let telling = printed.texts().filter(|line| !line.contains("bad address"));
    telling
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

/// All polls, once there are two more than now: the first of the two may have begun before.
async fn two_polls_more(poller: &Container) -> Result<Vec<String>, Finding> {
    let enough = polls(&poller.printed()).len() + 2;
    let told = |printed: &Printed| Some(polls(printed)).filter(|polls| polls.len() >= enough);
    poller.prints("two polls more", told).await
}

/// Main crashes and comes back; the poller's lines tell it.
#[rstest]
#[tokio::test]
async fn poller_sees_main_come_and_go(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/poller-sees-main-come-and-go", shape, async |pod| {
        let (main, poller) = (pod.main(), pod.sidecar());
        let before = main.run()?;
        two_polls_more(&poller).await?;
        main.tell("write /gate/closed yes").await?;
        main.signal_program("python3", "KILL").await?;
        main.run_ended(&before).await?;
        two_polls_more(&poller).await?;
        poller.tell("remove /gate/closed").await?;
        main.restarted_since(&before).await?;
        let mut seen = two_polls_more(&poller).await?;
        seen.dedup();
        let right = seen.ends_with(&["answer", "refused", "answer"].map(str::to_owned));
        expect(
            &poller,
            right,
            "answers, refusals, answers",
            format!("the sequence {seen:?}"),
        )
    })
    .await
}

/// One network for main and poller, another one for the next Pod.
#[rstest]
#[tokio::test]
async fn containers_share_one_ip(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/containers-share-one-ip", shape, async |pod| {
        properties::share_one_ip(pod, &pod.other("other")).await
    })
    .await
}

/// Poller and main get each other's page at localhost, and another Pod nothing at all.
#[rstest]
#[tokio::test]
async fn localhost_works_both_ways(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/localhost-works-both-ways", shape, async |pod| {
        properties::gets_on_localhost(&pod.sidecar(), 8080, PAGE).await?;
        properties::gets_on_localhost(&pod.main(), 8081, "The page of the poller").await?;
        properties::is_refused(&pod.other("client").main(), "http://localhost:8081/").await
    })
    .await
}

/// As soon as the poller tells of a poll, main serves the file with it.
#[rstest]
#[tokio::test]
async fn status_file_is_seen_at_once(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/status-file-is-seen-at-once", shape, async |pod| {
        let printed = pod.sidecar().prints_more(1).await?;
        let last = printed.texts().last().unwrap_or_default();
        let served = pod.http(8080).await?.get("/polls").await?;
        let found = served.status == 200 && served.body.lines().any(|line| line == last);
        let observed = format!("{} {}", served.status, served.body);
        expect(&pod.main(), found, format!("“{last}” in what main serves"), observed)
    })
    .await
}

/// Main crashes; the poller goes on undisturbed and gets answers again.
#[rstest]
#[tokio::test]
async fn main_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/main-restarts-alone", shape, async |pod| {
        let (main, poller) = (pod.main(), pod.sidecar());
        let answer = format!("answer {PAGE}");
        poller.prints_line("an answer of main", |line| line == answer).await?;
        let crash = async || main.signal_program("python3", "KILL").await;
        properties::restarts_alone(&main, &poller, crash).await?;
        // The first of the two may have been under way before main was back.
        let printed = poller.prints_more(2).await?;
        let last = printed.texts().last().unwrap_or_default();
        expect(&poller, last == answer, "an answer of main", last)
    })
    .await
}

/// The polling script ends; main goes on undisturbed, and the next run of the script polls it.
#[rstest]
#[tokio::test]
async fn poller_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/poller-restarts-alone", shape, async |pod| {
        let (main, poller) = (pod.main(), pod.sidecar());
        let end = async || poller.tell_to_end("write /tmp/end now").await;
        properties::restarts_alone(&poller, &main, end).await?;
        let answered = |line: &sidecheck::pod::Line| line.restarts == 1 && line.text == format!("answer {PAGE}");
        poller
            .prints("an answer to the next poller", |printed| {
                printed.lines.iter().any(answered).then_some(())
            })
            .await
    })
    .await
}

/// Main and poller tell of their SIGTERM.
#[rstest]
#[tokio::test]
async fn sigterm_reaches_every_container(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("monitoring/sigterm-reaches-every-container", shape, async |pod| {
        properties::deleted(pod).await?;
        properties::recorded(&pod.main(), "sigterm")?;
        properties::recorded(&pod.sidecar(), "sigterm")?;
        Ok(())
    })
    .await
}

/// Main takes its time to end; the poller is not told to end before that.
#[rstest]
#[tokio::test]
async fn poller_outlives_main(#[values(Native)] shape: Shape) -> Outcome {
    check("monitoring/poller-outlives-main", shape, async |pod| {
        properties::sidecar_is_ended_last(pod).await
    })
    .await
}
