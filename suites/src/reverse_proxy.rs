//! nginx stands before Python's HTTP server.

use rstest::rstest;
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::pod::Answer;
use sidecheck::{Container, Finding, Outcome, Verdict, check, eventually, expect, patience};

use crate::properties;

/// What main serves in the fixtures.
const PAGE: &str = "The page of the app";

/// The answer that came from `container` has this status and this text in its body.
fn shows(container: &Container, answer: &Answer, status: u16, text: &str) -> Verdict {
    let same = answer.status == status && answer.body.contains(text);
    let observed = format!("{} {}", answer.status, answer.body.trim_end());
    expect(container, same, format!("{status} {text}"), observed)
}

/// The page comes through the proxy by every way into the Pod; at main's port main itself answers.
#[rstest]
#[tokio::test]
async fn page_is_served_through_the_proxy(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/page-is-served-through-the-proxy", shape, async |pod| {
        let (main, proxy, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
        let (through, direct) = (pod.http(80).await?, pod.http(8080).await?);
        shows(&proxy, &through.get("/").await?, 200, PAGE)?;
        properties::gets(&client, &format!("http://{}/", pod.ip()?), PAGE).await?;
        properties::service_leads_to(&client, "app", PAGE).await?;
        properties::gets(&client, "http://app/", PAGE).await?;
        shows(&main, &direct.get("/").await?, 200, PAGE)?;
        shows(&proxy, &through.get("/proxy").await?, 200, "nginx")?;
        shows(&main, &direct.get("/proxy").await?, 404, "File not found")
    })
    .await
}

/// Main is ended and kept from serving for a while; the proxy says so, stays, and finds main again.
#[rstest]
#[tokio::test]
async fn main_down_means_502_and_recovery(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/main-down-means-502-and-recovery", shape, async |pod| {
        let (main, proxy) = (pod.main(), pod.sidecar());
        let untouched = proxy.run()?;
        main.tell("write /gate/closed yes").await?;
        properties::restarts_alone(&main, &proxy, async || main.terminate().await).await?;
        let http = pod.http(80).await?;
        shows(&proxy, &http.get("/").await?, 502, "Bad Gateway")?;
        main.tell("remove /gate/closed").await?;
        eventually(&proxy, "the page of main", patience::REACTION, async || {
            let answer = http.get("/").await?;
            Ok((answer.status == 200).then_some(()).ok_or(answer.body))
        })
        .await?;
        let now = proxy.run()?;
        expect(&proxy, now == untouched, format!("{untouched:?}"), format!("{now:?}"))
    })
    .await
}

/// Another Pod is refused at main's port and gets main's page at the proxy's.
#[rstest]
#[tokio::test]
async fn loopback_bound_main_is_reached_through_the_proxy_only(#[values(Classic, Native)] shape: Shape) -> Outcome {
    let id = "reverse-proxy/loopback-bound-main-is-reached-through-the-proxy-only";
    check(id, shape, async |pod| {
        let client = pod.other("client").main();
        properties::is_refused(&client, &format!("http://{}:8080/", pod.ip()?)).await?;
        properties::gets(&client, &format!("http://{}/", pod.ip()?), PAGE).await
    })
    .await
}

/// One network for main and proxy, another one for the next Pod.
#[rstest]
#[tokio::test]
async fn containers_share_one_ip(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/containers-share-one-ip", shape, async |pod| {
        properties::share_one_ip(pod, &pod.other("other")).await
    })
    .await
}

/// The proxy gets main's page at localhost, main the same through the proxy, and another Pod nothing at all.
#[rstest]
#[tokio::test]
async fn localhost_works_both_ways(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/localhost-works-both-ways", shape, async |pod| {
        properties::gets_on_localhost(&pod.sidecar(), 8080, PAGE).await?;
        properties::gets_on_localhost(&pod.main(), 80, PAGE).await?;
        properties::is_refused(&pod.other("client").main(), "http://localhost:80/").await
    })
    .await
}

/// The proxy can neither change its configuration nor add to it nor take from it.
#[rstest]
#[tokio::test]
async fn config_volume_is_read_only(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/config-volume-is-read-only", shape, async |pod| {
        let proxy = pod.sidecar();
        properties::has_begun(&proxy).await?;
        for change in [
            "write {}/new.conf #",
            "write {}/default.conf #",
            "remove {}/default.conf",
        ] {
            let change = change.replace("{}", "/etc/nginx/conf.d");
            properties::is_read_only(&proxy, &change).await?;
        }
        Ok(())
    })
    .await
}

/// nginx serves a file that main has just written, and main one that stands beside nginx's.
#[rstest]
#[tokio::test]
async fn one_volume_is_seen_by_both(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/one-volume-is-seen-by-both", shape, async |pod| {
        let (main, proxy) = (pod.main(), pod.sidecar());
        let (through, direct) = (pod.http(80).await?, pod.http(8080).await?);
        main.tell("write /srv/of-main.txt by main").await?;
        shows(&proxy, &through.get("/static/of-main.txt").await?, 200, "by main")?;
        proxy
            .tell("write /usr/share/nginx/html/static/of-proxy.txt by the proxy")
            .await?;
        shows(&main, &direct.get("/of-proxy.txt").await?, 200, "by the proxy")
    })
    .await
}

/// The proxy is restarted by its liveness probe; main goes on undisturbed and is served again.
#[rstest]
#[tokio::test]
async fn proxy_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/proxy-restarts-alone", shape, async |pod| {
        let (main, proxy) = (pod.main(), pod.sidecar());
        let sicken = async || proxy.tell_to_end("write /run/sick yes").await;
        properties::restarts_alone(&proxy, &main, sicken).await?;
        shows(&proxy, &pod.http(80).await?.get("/").await?, 200, PAGE)
    })
    .await
}

/// Main crashes; the proxy goes on undisturbed and serves the next main.
#[rstest]
#[tokio::test]
async fn main_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/main-restarts-alone", shape, async |pod| {
        let (main, proxy) = (pod.main(), pod.sidecar());
        let crash = async || main.signal_program("python3", "KILL").await;
        properties::restarts_alone(&main, &proxy, crash).await?;
        shows(&proxy, &pod.http(80).await?.get("/").await?, 200, PAGE)
    })
    .await
}

/// Requests that main has accepted and not yet answered when the Pod is deleted.
#[rstest]
#[tokio::test]
async fn zero_loss_drain(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/zero-loss-drain", shape, async |pod| {
        // The client's agent carries out six statements at once.
        const REQUESTS: usize = 4;
        let call = properties::call(&format!("http://{}/", pod.ip()?), patience::CALL);
        let (main, client) = (pod.main(), pod.other("client").main());
        let end = async {
            main.records_times("accepted", REQUESTS).await?;
            Ok(pod.deleted().await?)
        };
        let (answers, ended): (_, Result<_, Finding>) = tokio::join!(client.ask_at_once(REQUESTS, &call), end);
        ended?;
        for answer in answers? {
            let answered = answer.number("status") == Some(200) && answer.text("body") == "the answer";
            expect(&client, answered, "200 for every accepted request", answer.to_string())?;
        }
        Ok(())
    })
    .await
}

/// Main tells of its SIGTERM; nginx, whose image asks for SIGQUIT, tells of that.
#[rstest]
#[tokio::test]
async fn sigterm_reaches_every_container(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/sigterm-reaches-every-container", shape, async |pod| {
        properties::deleted(pod).await?;
        properties::recorded(&pod.main(), "sigterm")?;
        properties::nginx_was_told(&pod.sidecar())
    })
    .await
}

/// In the proxy's log, the hook's last words stand before nginx's stop signal.
#[rstest]
#[tokio::test]
async fn prestop_runs_before_sigterm(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/prestop-runs-before-sigterm", shape, async |pod| {
        const HOOK: &str = "the hook has ended";
        properties::deleted(pod).await?;
        let printed = pod.sidecar().printed();
        let order = printed
            .texts()
            .filter(|line| *line == HOOK || line.contains(properties::SIGQUIT));
        let order: Vec<_> = order.collect();
        let right = matches!(order[..], [HOOK, _]);
        expect(
            &pod.sidecar(),
            right,
            format!("“{HOOK}”, then “{}”", properties::SIGQUIT),
            order.join(" ⏎ "),
        )
    })
    .await
}

/// Main takes its time to end; the proxy is not told to end before that.
#[rstest]
#[tokio::test]
async fn proxy_ends_after_main(#[values(Native)] shape: Shape) -> Outcome {
    check("reverse-proxy/proxy-ends-after-main", shape, async |pod| {
        properties::sidecar_is_ended_last(pod).await
    })
    .await
}
