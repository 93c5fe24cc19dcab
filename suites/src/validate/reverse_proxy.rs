//! Reverse proxies: what a client asks of main arrives as it was sent, and so does what main answers.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sidecheck::agent;
use sidecheck::agent::Statement;
use sidecheck::pod::Line;
use sidecheck::pod::state::is_ready;
use sidecheck::timeline::Event;
use sidecheck::{Container, Finding, ScenarioPod, Verdict, patience};

use crate::properties::{WORKS, at};

crate::role! {
    "validate/reverse-proxy"
    shared {
        requests_arrive_unchanged,
        answers_arrive_unchanged,
        large_requests_arrive,
        large_answers_arrive,
        paths_are_preserved,
        the_host_is_preserved,
        forwarded_headers_name_the_client,
        hop_headers_are_not_passed_on,
        connections_are_kept,
        answers_are_not_held_back,
        websockets_pass,
        many_requests_are_under_way_at_once,
        // From here on, main fails the proxy.
        a_post_is_sent_once,
        main_may_be_away,
    }
    last { accepted_requests_are_answered }
    own {
        starts_before_main [Classic, Native],
        reaches_main_by_ipv6 [Classic, Native],
        follows_its_upstreams_name [Classic, Native],
        a_drain_ends_with_mains_restart [Classic, Native],
    }
}

/// Where main listens, and where it does for those who try every address of its name.
const MAIN: &str = "127.0.0.1:18080";
const MAIN_BY_IPV6: &str = "[::1]:18080";

/// What is large.
const LARGE: u64 = 1 << 20;

/// What is asserted of a proxy whose main is away.
const SAYS_SO: &str = "it says that main is away";

/// The URL of a path at the proxy's port.
fn through(pod: &ScenarioPod, path: &str) -> anyhow::Result<String> {
    let port = pod.profile()?.reverse_proxy().listen.get();
    Ok(at(&pod.ip()?, port).trim_end_matches('/').to_owned() + path)
}

/// What came of a request.
struct Exchange {
    event: Event,
    /// What was sent and what was answered; nothing if the request failed.
    asked: Value,
}

impl From<Event> for Exchange {
    fn from(event: Event) -> Self {
        let asked = Value::Object(event.fields.clone());
        Self { event, asked }
    }
}

impl Exchange {
    async fn of(from: &Container, ask: Statement) -> anyhow::Result<Self> {
        from.ask(ask.within(patience::CALL)).await.map(Self::from)
    }

    fn answer(&self) -> &Value {
        &self.asked["answers"][0]
    }

    /// What came of it, in a few words.
    fn outcome(&self) -> String {
        const SHOWN: usize = 60;
        let answer = self.answer();
        if answer.is_null() {
            return format!("no answer: {}", self.event.text("message"));
        }
        let body: String = answer["body"]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(SHOWN)
            .collect();
        format!("{} “{}”", answer["status"], body.trim_end())
    }

    /// What main says has arrived; nothing if main has not answered.
    fn arrived(&self) -> Value {
        let body = self.answer()["body"].as_str().unwrap_or_default();
        serde_json::from_str(body).unwrap_or_default()
    }

    /// A header that has arrived at main; several are one with commas, as a proxy may write them.
    fn arrived_header(&self, name: &str) -> Value {
        let values = &self.arrived()["headers"][name];
        let values: Vec<&str> = values
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if values.is_empty() {
            Value::Null
        } else {
            values.join(", ").into()
        }
    }

    /// Asserts what an answer, or what arrived, is like, by the names of its parts. If main has not answered, nothing is known of them.
    fn shows(&self, pod: &ScenarioPod, label: &'static str, expected: &Value, observed: &Value) -> Verdict {
        let sidecar = pod.sidecar();
        let expect = sidecar.expect(label);
        if self.answer().is_null() {
            return expect.holds(false, differing(expected, &Value::Null), self.outcome());
        }
        let (wanted, seen) = (differing(expected, observed), differing(observed, expected));
        expect.holds(expected == observed, wanted, seen)
    }

    /// Asserts that it is the proxy's own word that main is away.
    fn says_that_main_is_away(&self, pod: &ScenarioPod) -> Verdict {
        let status = self.answer()["status"].as_u64();
        let sidecar = pod.sidecar();
        sidecar
            .expect(SAYS_SO)
            .holds(matches!(status, Some(502..=504)), "502, 503 or 504", self.outcome())
    }
}

/// The parts of `these` that are others in `those`: `status: 418, x-two: none`.
fn differing(these: &Value, those: &Value) -> String {
    let parts = these.as_object().into_iter().flatten();
    let differing = parts.filter(|(name, value)| those[name] != **value);
    let texts: Vec<String> = differing
        .map(|(name, value)| match value {
            Value::Null => format!("{name}: none"),
            value => format!("{name}: {value}"),
        })
        .collect();
    texts.join(", ")
}

/// A request of main is answered by main, in the end.
async fn main_answers(pod: &ScenarioPod, label: &'static str, within: Duration) -> Verdict {
    let (main, sidecar, ask) = (pod.main(), pod.sidecar(), agent::ask("GET", through(pod, "/echo")?));
    let expect = sidecar.expect(label).within(within);
    expect
        .eventually("an answer of main through the proxy", async || {
            let exchange = Exchange::of(&main, ask.clone()).await?;
            let answered = exchange.arrived()["target"] == "/echo";
            Ok(answered.then_some(()).ok_or(exchange.outcome()))
        })
        .await
}

async fn works(pod: &ScenarioPod) -> Verdict {
    main_answers(pod, WORKS, patience::REACTION).await
}

/// Main's log until it holds that many requests; counts them.
fn holds(requests: usize, held: &Cell<usize>) -> impl FnMut(&Line) -> Option<()> {
    move |line| {
        let accepted = line.event.as_ref().is_some_and(|event| event.event == "accepted");
        held.set(held.get() + usize::from(accepted));
        (held.get() >= requests).then_some(())
    }
}

/// A PATCH with a query that has odd parts, headers of which one is there twice, and a short body.
async fn requests_arrive_unchanged(pod: &ScenarioPod) -> Verdict {
    const HEADERS: [(&str, &str); 7] = [
        ("x-one", "a"),
        ("x-two", "b"),
        ("x-two", "c"),
        ("accept", "text/plain;q=0.5, */*;q=0.1"),
        ("cookie", "d=1; e=\"2\""),
        ("authorization", "Basic dXNlcjpwYXNz"),
        ("user-agent", "sidecheck/1 (a client)"),
    ];
    let target = "/echo/a?b=c&&d=%20e&b=f";
    let ask = agent::ask("PATCH", through(pod, target)?).bytes(1_000);
    let ask = HEADERS.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    let exchange = Exchange::of(&pod.main(), ask).await?;
    let arrived = exchange.arrived();
    let line = json!({"method": arrived["method"], "target": arrived["target"]});
    let sent = json!({"method": "PATCH", "target": target});
    exchange.shows(pod, "method, path and query arrive", &sent, &line)?;
    let mut sent: Map<String, Value> = Map::new();
    for (name, value) in HEADERS {
        let value = match sent.get(name).and_then(Value::as_str) {
            Some(first) => format!("{first}, {value}"),
            None => value.to_owned(),
        };
        sent.insert(name.to_owned(), value.into());
    }
    let headers = sent.keys().map(|name| (name.clone(), exchange.arrived_header(name)));
    let headers = Value::Object(headers.collect());
    exchange.shows(pod, "the headers arrive", &Value::Object(sent), &headers)?;
    let body = json!({"bytes": arrived["bytes"], "checksum": arrived["checksum"]});
    exchange.shows(pod, "the body arrives", &exchange.asked["sent"], &body)
}

/// A status that no proxy has of itself, headers of which some are there twice, and a short body.
async fn answers_arrive_unchanged(pod: &ScenarioPod) -> Verdict {
    let exchange = Exchange::of(&pod.main(), agent::ask("GET", through(pod, "/status/418")?)).await?;
    let answer = exchange.answer();
    let status = json!({"status": answer["status"]});
    exchange.shows(pod, "the status arrives", &json!({"status": 418}), &status)?;
    let headers =
        ["x-answer", "set-cookie", "cache-control"].map(|name| (name.to_owned(), answer["headers"][name].clone()));
    let headers = Value::Object(Map::from_iter(headers));
    let said = json!({"x-answer": ["one", "two"], "set-cookie": ["a=1; Path=/", "b=2"], "cache-control": ["no-store"]});
    exchange.shows(pod, "the headers arrive", &said, &headers)?;
    let body = json!({"body": answer["body"]});
    exchange.shows(pod, "the body arrives", &json!({"body": "status 418"}), &body)
}

/// A body with its length, and one in chunks.
async fn large_requests_arrive(pod: &ScenarioPod) -> Verdict {
    let ask = agent::ask("POST", through(pod, "/echo")?).bytes(LARGE);
    for ask in [ask.clone(), ask.chunked()] {
        let exchange = Exchange::of(&pod.main(), ask).await?;
        let arrived = exchange.arrived();
        let body = json!({"bytes": arrived["bytes"], "checksum": arrived["checksum"]});
        exchange.shows(pod, "the whole body arrives at main", &exchange.asked["sent"], &body)?;
    }
    Ok(())
}

/// A body with its length, and one in chunks.
async fn large_answers_arrive(pod: &ScenarioPod) -> Verdict {
    for way in ["bytes", "chunked"] {
        let ask = agent::ask("GET", through(pod, &format!("/{way}/{LARGE}"))?);
        let exchange = Exchange::of(&pod.main(), ask).await?;
        let answer = exchange.answer();
        let sent = json!({"bytes": LARGE, "checksum": answer["headers"]["x-checksum"][0]});
        let body = json!({"bytes": answer["bytes"], "checksum": answer["checksum"]});
        exchange.shows(pod, "the whole answer arrives at the client", &sent, &body)?;
    }
    Ok(())
}

/// What some take for another way to write a simpler path.
async fn paths_are_preserved(pod: &ScenarioPod) -> Verdict {
    for target in [
        "/echo//a//",
        "/echo/a%2Fb%20c/%7e",
        "/echo/a/../b/./c",
        "/echo?a=%2F&&b=1//2&=c&d",
    ] {
        let exchange = Exchange::of(&pod.main(), agent::ask("GET", through(pod, target)?)).await?;
        let (sent, arrived) = (
            json!({"target": target}),
            json!({"target": exchange.arrived()["target"]}),
        );
        exchange.shows(pod, "the target arrives as it is", &sent, &arrived)?;
    }
    Ok(())
}

/// A name that is neither the Pod's nor main's.
async fn the_host_is_preserved(pod: &ScenarioPod) -> Verdict {
    let ask = agent::ask("GET", through(pod, "/echo")?).header("Host", "app.example");
    let exchange = Exchange::of(&pod.main(), ask).await?;
    let arrived = json!({"host": exchange.arrived_header("host")});
    exchange.shows(pod, "the Host arrives", &json!({"host": "app.example"}), &arrived)
}

/// Another Pod asks; the last address is the one that the proxy has seen itself.
async fn forwarded_headers_name_the_client(pod: &ScenarioPod) -> Verdict {
    let client = pod.other("client");
    let ask = agent::ask("GET", through(pod, "/echo")?).header("Host", "app.example");
    let exchange = Exchange::of(&client.main(), ask).await?;
    let forwarded = |client: &str, host: &Value, proto: &Value| json!({"last x-forwarded-for": client, "x-forwarded-host": host, "x-forwarded-proto": proto});
    let [chain, host, proto] =
        ["for", "host", "proto"].map(|what| exchange.arrived_header(&format!("x-forwarded-{what}")));
    let last = chain
        .as_str()
        .and_then(|chain| chain.rsplit(", ").next())
        .unwrap_or_default();
    let ips = client.ips()?;
    let expected = ips.iter().find(|ip| *ip == last).unwrap_or(&ips[0]);
    let expected = forwarded(expected, &json!("app.example"), &json!("http"));
    let arrived = forwarded(last, &host, &proto);
    exchange.shows(pod, "the X-Forwarded headers are right", &expected, &arrived)
}

/// Headers of which the client says that they are about its connection, by their names or in Connection.
async fn hop_headers_are_not_passed_on(pod: &ScenarioPod) -> Verdict {
    let ask = agent::ask("GET", through(pod, "/echo")?)
        .header("Connection", "keep-alive, x-hop")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "gzip")
        .header("X-Hop", "1");
    let exchange = Exchange::of(&pod.main(), ask).await?;
    let arrived = ["keep-alive", "te", "x-hop"].map(|name| (name.to_owned(), exchange.arrived_header(name)));
    let mut arrived = Map::from_iter(arrived);
    // A request that does not arrive has no headers either.
    arrived.insert("target".to_owned(), exchange.arrived()["target"].clone());
    let arrived = Value::Object(arrived);
    let none = json!({"keep-alive": null, "te": null, "x-hop": null, "target": "/echo"});
    exchange.shows(pod, "headers for one connection stay there", &none, &arrived)
}

/// Three requests on one connection, and three that main answers on a connection each.
async fn connections_are_kept(pod: &ScenarioPod) -> Verdict {
    let each = |exchange: &Exchange, field: &str| {
        let answers = exchange.asked["answers"].as_array();
        let each: Vec<&Value> = answers.into_iter().flatten().map(|answer| &answer[field]).collect();
        json!({ field: each })
    };
    let ask = |path| anyhow::Ok(agent::ask("GET", through(pod, path)?).times(3));
    let kept = Exchange::of(&pod.main(), ask("/echo")?).await?;
    kept.shows(
        pod,
        "one connection is enough",
        &json!({"connection": [1, 1, 1]}),
        &each(&kept, "connection"),
    )?;
    let closed = Exchange::of(&pod.main(), ask("/close")?).await?;
    let label = "main’s closed connections cost no request";
    let expected = json!({"status": [200, 200, 200]});
    closed.shows(pod, label, &expected, &each(&closed, "status"))
}

/// Main sends the next part only when the client has said, on another connection, that it has the last one.
async fn answers_are_not_held_back(pod: &ScenarioPod) -> Verdict {
    let events = agent::events(through(pod, "/events")?).within(patience::CALL);
    let (sidecar, seen) = (pod.sidecar(), pod.main().ask(events).await?);
    let expect = sidecar.expect("each part arrives at once");
    let observed = match seen.number("seen") {
        Some(parts) => format!("status {}, {parts} of them", seen.number("status").unwrap_or_default()),
        None => seen.to_string(),
    };
    expect.holds(seen.number("seen") == Some(4), "4 parts, one by one", observed)
}

/// A page of another origin opens it.
async fn websockets_pass(pod: &ScenarioPod) -> Verdict {
    let origin = "https://app.example";
    let websocket = agent::websocket(through(pod, "/websocket")?, 3, origin).within(patience::CALL);
    let (sidecar, opened) = (pod.sidecar(), pod.main().ask(websocket).await?);
    let observed = opened.to_string();
    let expect = sidecar.expect("main becomes a WebSocket");
    expect.holds(opened.number("status") == Some(101), "101", &observed)?;
    let arrived = opened
        .fields
        .get("request")
        .map(|request| &request["headers"]["origin"]);
    let expect = sidecar.expect("the Origin arrives");
    expect.holds(arrived == Some(&json!([origin])), origin, &observed)?;
    let expect = sidecar.expect("messages pass both ways");
    expect.holds(
        opened.number("echoed") == Some(3),
        "3 messages there and back",
        observed,
    )
}

/// Main holds 200 requests of another Pod before it answers the first one.
async fn many_requests_are_under_way_at_once(pod: &ScenarioPod) -> Verdict {
    const REQUESTS: usize = 200;
    let (main, sidecar, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
    let since = main.line_count()?;
    let load = agent::load(through(pod, "/held?many")?, REQUESTS).within(patience::CALL);
    client.arrange(load.every(patience::LIFE)).await?;
    let expect = main.expect("main gets them all").owed_by(&sidecar).after(since);
    let (count, what) = (Cell::new(0), "200 requests at the same time");
    let observed = || format!("{} at the same time", count.get());
    let held = expect.prints_else(what, holds(REQUESTS, &count), observed).await;
    main.arrange(agent::release("many")).await?;
    let load = client.arrange(agent::load_stop()).await?;
    held?;
    let all = load.number("ok") == Some(REQUESTS as u64) && load.number("failed") == Some(0);
    sidecar
        .expect("each of them is answered")
        .holds(all, "200 answers", load.to_string())
}

/// Main closes the connection on which a POST arrives for the first time.
async fn a_post_is_sent_once(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    let post = agent::ask("POST", through(pod, "/once?post")?).bytes(2);
    let sent = Exchange::of(&main, post).await?;
    let count = agent::ask("GET", format!("http://{MAIN}/once?post"));
    let count = Exchange::of(&main, count).await?;
    let sidecar = pod.sidecar();
    let times = count.answer()["body"].as_str().unwrap_or_default();
    let observed = format!("{times} times; the client got {}", sent.outcome());
    sidecar
        .expect("main gets it once")
        .holds(count.answer()["body"] == "1", "one POST", observed)
}

/// Main goes away and comes back while another Pod asks again and again.
async fn main_may_be_away(pod: &ScenarioPod) -> Verdict {
    let (main, client, url) = (pod.main(), pod.other("client").main(), through(pod, "/echo")?);
    client.arrange(agent::load(&url, 4).within(patience::CALL)).await?;
    main.arrange(agent::echo_close(MAIN)).await?;
    let away = Exchange::of(&main, agent::ask("GET", url)).await?;
    main.arrange(agent::echo(MAIN)).await?;
    let back = main_answers(pod, "main answers again soon", patience::RECOVERY).await;
    let load = client.arrange(agent::load_stop()).await?;
    away.says_that_main_is_away(pod)?;
    back?;
    let statuses = load.fields.get("statuses").unwrap_or(&Value::Null);
    let right = ["200", "502", "503", "504"].map(|status| statuses[status].as_u64().unwrap_or_default());
    let sidecar = pod.sidecar();
    sidecar.expect(SAYS_SO).holds(
        Some(right.iter().sum()) == load.number("sent"),
        "no other answers than 502, 503, 504 and main's",
        load.to_string(),
    )
}

/// Another Pod's requests, which main holds until some time after its stop signal. In the classic shape the proxy gets its own at the same time.
async fn accepted_requests_are_answered(pod: &ScenarioPod) -> Verdict {
    const LABEL: &str = "every accepted request is answered";
    const REQUESTS: usize = 4;
    let (main, sidecar, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
    let since = main.line_count()?;
    let ask = agent::ask("GET", through(pod, "/held?drain")?).within(patience::CALL);
    let end = async {
        let expect = main.expect(LABEL).owed_by(&sidecar).after(since);
        let count = Cell::new(0);
        let observed = || format!("{} of them", count.get());
        expect
            .prints_else("4 requests that main has accepted", holds(REQUESTS, &count), observed)
            .await?;
        pod.deleted().await?;
        Ok::<_, Finding>(())
    };
    let (answers, ended) = tokio::join!(client.ask_at_once(REQUESTS, ask), end);
    ended?;
    for exchange in answers?.into_iter().map(Exchange::from) {
        let answered = exchange.answer()["body"] == "the answer";
        let expect = sidecar.expect(LABEL);
        expect.holds(answered, "“the answer”", exchange.outcome())?;
    }
    Ok(())
}

/// Main's program is there, and does not listen yet.
async fn starts_before_main(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    let early = Exchange::of(&main, agent::ask("GET", through(pod, "/echo")?)).await?;
    early.says_that_main_is_away(pod)?;
    main.arrange(agent::echo(MAIN)).await?;
    main_answers(pod, "main answers once it is there", patience::RECOVERY).await
}

/// The upstream's name has no address at first, then that of one Pod, then that of another one which takes the first one's place.
async fn follows_its_upstreams_name(pod: &ScenarioPod) -> Verdict {
    const UPSTREAM: &str = "[::]:18080";
    let (main, sidecar, ask) = (pod.main(), pod.sidecar(), agent::ask("GET", through(pod, "/echo")?));
    let early = Exchange::of(&main, ask.clone()).await?;
    early.says_that_main_is_away(pod)?;
    for name in ["first", "second"] {
        let selector = json!({"spec": {"selector": {"upstream": name}}});
        pod.patch("v1", "Service", "upstream", &selector).await?;
        let expect = sidecar.expect("it finds its upstream").within(patience::NAMES);
        let what = format!("an answer of the Pod {name} through the proxy");
        expect
            .eventually(&what, async || {
                let exchange = Exchange::of(&main, ask.clone()).await?;
                let answered = exchange.arrived()["host"] == name;
                Ok(answered.then_some(()).ok_or(exchange.outcome()))
            })
            .await?;
        pod.other(name).main().arrange(agent::echo_close(UPSTREAM)).await?;
    }
    Ok(())
}

/// Main does what its preStop hook would do, and ends with an error as if a liveness probe had failed. It listens again when the kubelet has had
/// the time to see that the sidecar is not ready meanwhile, if it says so.
async fn a_drain_ends_with_mains_restart(pod: &ScenarioPod) -> Verdict {
    let (main, sidecar) = (pod.main(), pod.sidecar());
    let Some(drain) = pod.profile()?.reverse_proxy().drain else {
        return Err(Finding::NotApplicable(
            "the profile names nothing that main could get so that it drains".to_owned(),
        ));
    };
    main.arrange(agent::echo(MAIN)).await?;
    let url = at("127.0.0.1", drain.port.get()).trim_end_matches('/').to_owned() + drain.path.as_str();
    let asked = Exchange::of(&main, agent::ask("GET", url)).await?;
    let accepted = matches!(asked.answer()["status"].as_u64(), Some(200..=299));
    let expect = sidecar.expect("it accepts the request to drain");
    expect.holds(accepted, "a status from 200 to 299", asked.outcome())?;
    let before = main.run()?;
    main.end_by(agent::exit(1)).await?;
    main.given().restarts(&before).await?;
    pod.until("a Pod that is not ready", |state| !is_ready(&state.pod))
        .await
        .ok();
    main.arrange(agent::echo(MAIN)).await?;
    main_answers(pod, "main answers again after its restart", patience::RECOVERY).await?;
    let expect = sidecar.expect("it is ready again").within(patience::RECOVERY);
    expect
        .eventually("a Pod that is ready", async || {
            let is_ready = pod.state().is_some_and(|state| is_ready(&state.pod));
            Ok(is_ready.then_some(()).ok_or(pod.describe()))
        })
        .await
}

/// Main's name has an address at which nobody listens, and another one.
async fn reaches_main_by_ipv6(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    if !main.identity().await?.has_ipv6_loopback() {
        return Err(Finding::NotApplicable(
            "the Pod has no IPv6 loopback address".to_owned(),
        ));
    }
    main.arrange(agent::echo(MAIN_BY_IPV6)).await?;
    main_answers(pod, "main answers by IPv6", patience::RECOVERY).await
}
