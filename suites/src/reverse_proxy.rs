//! nginx stands before Python's HTTP server.

use sidecheck::agent;
use sidecheck::pod::Answer;
use sidecheck::{ScenarioPod, Verdict, patience};

use crate::properties::{
    WORKS, at, gets, is_read_only, is_refused, last_run, restarts_alone, sees_at_once, service_leads_to,
};

crate::checks! {
    "reverse-proxy"
    shared {
        page_is_served_through_the_proxy,
        loopback_bound_main_is_reached_through_the_proxy_only,
        config_volume_is_read_only,
        proxy_and_main_share_files,
    }
    last { main_down_means_502_and_recovery, prestop_runs_before_sigterm }
    own {
        liveness_failure_restarts_the_proxy_alone [Classic, Native],
        zero_loss_drain [Classic, Native],
    }
}

/// What main serves.
const PAGE: &str = "The page of the app";

fn is_page(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.trim_end() == PAGE
}

/// The page comes through the proxy.
async fn works(pod: &ScenarioPod) -> Verdict {
    let proxy = pod.sidecar();
    let expect = proxy.expect(WORKS);
    expect
        .answers(&pod.http(80).await?, "/", &format!("“{PAGE}”"), is_page)
        .await?;
    Ok(())
}

/// Waits until somebody serves main's port.
async fn serves(pod: &ScenarioPod) -> anyhow::Result<()> {
    let (main, direct) = (pod.main(), pod.http(8080).await?);
    let what = "that somebody serves main's port";
    main.given().answers(&direct, "/index.html", what, |_| true).await?;
    Ok(())
}

async fn end_main(pod: &ScenarioPod) -> anyhow::Result<()> {
    serves(pod).await?;
    pod.main().end_program("python3", "KILL").await
}

async fn end_sidecar(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().end_program("nginx", "KILL").await
}

/// The page comes through the proxy by every way into the Pod; at main's port main itself answers.
async fn page_is_served_through_the_proxy(pod: &ScenarioPod) -> Verdict {
    let (main, proxy, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
    let (through, direct) = (pod.http(80).await?, pod.http(8080).await?);
    serves(pod).await?;
    let page = format!("“{PAGE}”");
    proxy
        .expect("the page by port-forward")
        .answers_at_once(&through, "/", &page, is_page)
        .await?;
    gets(&client, "the page by Pod IP", &at(&pod.ip()?, 80), PAGE).await?;
    service_leads_to(&client, "the page by Service", "app", PAGE).await?;
    let own = proxy.expect("the proxy's own page");
    own.answers_at_once(&through, "/proxy", "“nginx”", |answer| {
        answer.status == 200 && answer.body == "nginx"
    })
    .await?;
    let own = main.expect("main's own port is main's");
    own.answers_at_once(&direct, "/proxy", "404", |answer| answer.status == 404)
        .await?;
    Ok(())
}

/// Main is ended and kept from serving for a while; the proxy says so, stays, and finds main again.
async fn main_down_means_502_and_recovery(pod: &ScenarioPod) -> Verdict {
    let (main, proxy, http) = (pod.main(), pod.sidecar(), pod.http(80).await?);
    main.given()
        .answers(&http, "/", "the page of main at first", is_page)
        .await?;
    main.arrange(agent::write("/gate/closed", "yes")).await?;
    restarts_alone(&main, &proxy, async || Ok(main.end_program("python3", "KILL").await?)).await?;
    let down = proxy.expect("502 while main is down");
    down.answers_at_once(&http, "/", "502 Bad Gateway", |answer| answer.status == 502)
        .await?;
    main.arrange(agent::remove("/gate/closed")).await?;
    proxy
        .expect("the page of main comes back")
        .answers(&http, "/", &format!("“{PAGE}”"), is_page)
        .await?;
    Ok(())
}

/// Another Pod is refused at main's port and gets main's page at the proxy's.
async fn loopback_bound_main_is_reached_through_the_proxy_only(pod: &ScenarioPod) -> Verdict {
    let (client, ip) = (pod.other("client").main(), pod.ip()?);
    serves(pod).await?;
    is_refused(&client, "main's port is refused at the Pod's IP", &at(&ip, 8080)).await?;
    gets(&client, "the proxy reaches main", &at(&ip, 80), PAGE).await
}

/// The proxy can neither change its configuration nor add to it nor take from it.
async fn config_volume_is_read_only(pod: &ScenarioPod) -> Verdict {
    let changes = [
        agent::write("/etc/nginx/conf.d/new.conf", "#"),
        agent::write("/etc/nginx/conf.d/default.conf", "#"),
        agent::remove("/etc/nginx/conf.d/default.conf"),
    ];
    is_read_only(&pod.sidecar(), "the configuration cannot be changed", &changes).await
}

/// nginx serves a file that main has just written, and main finds one that the proxy has.
async fn proxy_and_main_share_files(pod: &ScenarioPod) -> Verdict {
    let (main, proxy) = (pod.main(), pod.sidecar());
    main.arrange(agent::write("/files/of-main.txt", "by main")).await?;
    let expect = proxy.expect("the proxy serves main's file");
    let right = |answer: &Answer| answer.status == 200 && answer.body == "by main\n";
    expect
        .answers_at_once(&pod.http(80).await?, "/static/of-main.txt", "“by main”", right)
        .await?;
    let there = "/usr/share/nginx/html/static/of-proxy.txt";
    sees_at_once((&proxy, there), (&main, "/files/of-proxy.txt"), "by the proxy").await
}

/// The proxy is restarted by its liveness probe; main runs on undisturbed and is served again.
async fn liveness_failure_restarts_the_proxy_alone(pod: &ScenarioPod) -> Verdict {
    let (main, proxy) = (pod.main(), pod.sidecar());
    let sicken = agent::write("/tmp/sick", "yes");
    restarts_alone(&proxy, &main, async || Ok(proxy.end_by(sicken).await?)).await?;
    works(pod).await
}

/// In the proxy's log, the hook's event comes before that of the stop signal.
async fn prestop_runs_before_sigterm(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    let (proxy, last) = (pod.sidecar(), last_run(&pod.sidecar())?);
    let lines = proxy.lines()?;
    let events = lines
        .iter()
        .filter(|line| line.run == last)
        .filter_map(|line| line.event.as_deref());
    let order: Vec<&str> = events
        .map(|event| event.event.as_str())
        .filter(|event| ["hook-ended", "stop-signal"].contains(event))
        .collect();
    let right = order == ["hook-ended", "stop-signal"];
    let expect = proxy.expect("the hook ends before the stop signal");
    expect.holds(right, "hook-ended, then stop-signal", order.join(", "))
}

/// Requests that main has accepted and not yet answered when the Pod is deleted: each of them is answered.
async fn zero_loss_drain(pod: &ScenarioPod) -> Verdict {
    // An agent carries out several statements at the same time, each in its own thread.
    const REQUESTS: usize = 4;
    let call = agent::call(at(&pod.ip()?, 80)).within(patience::CALL);
    let (main, client) = (pod.main(), pod.other("client").main());
    let end = async {
        main.given().records_times("accepted", REQUESTS).await?;
        pod.deleted().await
    };
    let (answers, ended) = tokio::join!(client.ask_at_once(REQUESTS, call), end);
    ended?;
    for answer in answers? {
        let answered = answer.number("status") == Some(200) && answer.text("body") == "the answer";
        client
            .expect("every accepted request is answered")
            .holds(answered, "200", answer.to_string())?;
    }
    Ok(())
}
