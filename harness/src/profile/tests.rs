use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::{Args, FromArgMatches, ValueEnum};
use insta::assert_snapshot;
use serde_json::{Value, json};

use super::source::Source;
use super::{Claim, ImageDefaults, Overrides, Profile, Role, UrlPath, schema};

const SHIPPER: &str = r#"role: logging
image: example.com/shipper:2
command: [/shipper]
args: [--config, /etc/shipper/shipper.yaml]
env: {LEVEL: info}
files:
  /etc/shipper/shipper.yaml: |
    read: {{logs}}/*.log
    send: {{sink.host}}:{{sink.port}}
    name: '{{ .Name }} {{{{logs}}'
badFiles:
  /etc/shipper/shipper.yaml: "read: ["
ports: [8080]
health: {http: {path: /health, port: 8080}}
user: 10001
capabilities: [CAP_NET_BIND_SERVICE]
writable: [/var/lib/shipper/, /tmp]
resources: {cpu: 0.5, memory: 64Mi}
stopSignal: QUIT
grace: 1m
kubernetesApi: true
claims: [rename, no-shell]
logging:
  mount: /logs
  delivers: {file: /out/all.log}
"#;

fn read(text: &str) -> anyhow::Result<Profile> {
    Source::new(Path::new("shipper.yaml"), text.to_owned()).profile(None)
}

fn error(text: &str) -> String {
    format!("{:#}", read(text).expect_err("a fault"))
}

fn logging(text: &str) -> String {
    error(&format!("role: logging\n{text}"))
}

fn flags(arguments: &[&str]) -> Result<Overrides, clap::Error> {
    let command = Overrides::augment_args(clap::Command::new("validate").no_binary_name(true));
    Overrides::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn flag_error(arguments: &[&str]) -> String {
    let error = flags(arguments).expect_err("a fault").to_string();
    error.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_profile_survives_json_and_yaml() {
    let profile = read(SHIPPER).expect("a profile");
    let json = serde_json::to_string(&profile).expect("JSON");
    assert_eq!(serde_json::from_str::<Profile>(&json).expect("a profile"), profile);
    let yaml = profile.to_yaml().expect("YAML");
    assert_eq!(read(&yaml).expect("a profile"), profile);
    assert_snapshot!(yaml, @r#"
    role: logging
    image: example.com/shipper:2
    command:
    - /shipper
    args:
    - --config
    - /etc/shipper/shipper.yaml
    env:
      LEVEL: info
    files:
      /etc/shipper/shipper.yaml: |
        read: {{logs}}/*.log
        send: {{sink.host}}:{{sink.port}}
        name: '{{ .Name }} {{{{logs}}'
    badFiles:
      /etc/shipper/shipper.yaml: "read: ["
    ports:
    - 8080
    health:
      http:
        path: /health
        port: 8080
    user: 10001
    capabilities:
    - NET_BIND_SERVICE
    writable:
    - /var/lib/shipper
    - /tmp
    resources:
      cpu: "0.5"
      memory: 64Mi
    stopSignal: SIGQUIT
    grace: 60s
    kubernetesApi: true
    claims:
    - rename
    - no-shell
    logging:
      mount: /logs
      delivers:
        file: /out/all.log
    "#);
}

#[test]
fn every_text_survives() {
    for text in [
        "",
        " a",
        "a\n",
        "\n\na\n\n",
        "a \n\tb",
        "a\r\nb",
        "  a\n b\n",
        "- a\n# b",
        "null",
        "010",
        "a: b",
        "é\u{1}\u{2028}",
    ] {
        let mut profile = read("files: {/x: ''}").expect("a profile");
        profile.files.values_mut().for_each(|file| *file = text.to_owned());
        profile.args = vec![text.to_owned()];
        assert_eq!(read(&profile.to_yaml().expect("YAML")).expect(text), profile);
    }
}

#[test]
fn every_form_of_a_field_survives() {
    for text in [
        "health: {tcp: 5170}",
        "health: {exec: [/bin/check, -v]}",
        "role: logging\nlogging: {delivers: syslog}",
        "role: config-reload\nconfigReload: {reloads: http}",
        "role: config-reload\nconfigReload: {reloads: {signal: HUP, process: app}}",
        "role: config-reload\nconfigReload: {mount: /etc/app, reloads: {file: /out/config.yaml}}",
        "role: reverse-proxy\nreverseProxy: {listen: 80}",
        "ports: []",
        "grace: 500ms",
        "env: {A: 1, B: 010, C: yes}",
    ] {
        let profile = read(text).expect(text);
        let json = serde_json::to_value(&profile).expect("JSON");
        assert_eq!(serde_json::from_value::<Profile>(json.clone()).expect(text), profile);
        assert_eq!(read(&profile.to_yaml().expect("YAML")).expect(text), profile);
        assert_eq!(faults(&json), [""; 0], "{text}");
    }
}

#[test]
fn an_unknown_field_has_its_place_and_what_was_meant() {
    assert_snapshot!(error("role: logging\nhealt: {tcp: 1}\n"), @"shipper.yaml:2:1: unknown field “healt”; did you mean “health”? known here: role, image, command, args, env, files, badFiles, ports, health, user, capabilities, writable, resources, stopSignal, grace, startup, kubernetesApi, claims, logging, reverseProxy, configReload");
    assert_snapshot!(error("role: logging\nlogging:\n  mounts: /x\n"), @"shipper.yaml:3:3: unknown field “mounts”; did you mean “mount”? known here: mount, delivers");
    assert_snapshot!(error("health:\n  http: {url: /x, port: 1}\n"), @"shipper.yaml:2:10: unknown field “url”; known here: path, port");
    assert_snapshot!(error("health: {http: {path: /x}}\n"), @"shipper.yaml:1:17: the field “port” is missing");
    assert_snapshot!(error("health: {icmp: 1}\n"), @"shipper.yaml:1:10: unknown value “icmp”; known here: http, tcp, exec");
    assert_snapshot!(error("configReload: {reloads: {signl: HUP}}\n"), @"shipper.yaml:1:26: unknown field “signl”; did you mean “signal”? known here: file, signal, process");
    assert_snapshot!(error("role: loging\n"), @"shipper.yaml:1:7: unknown value “loging”; did you mean “logging”? known here: logging, reverse-proxy, config-reload, generic");
    assert_snapshot!(error("user: 1\nuser: 2\n"), @"shipper.yaml:2:1: “user” is there twice");
}

#[test]
fn a_wrong_value_says_what_would_be_right() {
    assert_snapshot!(error("ports: [80, 70000]"), @"shipper.yaml:1:13: “70000” is no port; a port is a number from 1 to 65535");
    assert_snapshot!(error("ports: [0]"), @"shipper.yaml:1:9: “0” is no port; a port is a number from 1 to 65535");
    assert_snapshot!(error("ports: [http]"), @"shipper.yaml:1:9: “http” is no port; a port is a number from 1 to 65535");
    assert_snapshot!(error("ports: 80"), @"shipper.yaml:1:8: expected a list");
    assert_snapshot!(error("ports: [-1]"), @"shipper.yaml:1:9: “-1” is no port; a port is a number from 1 to 65535");
    assert_snapshot!(error("resources: {memory: 64MB}"), @"shipper.yaml:1:21: “64MB” is no quantity; write it as Kubernetes does, above 0: 200m, 0.5 or 64Mi");
    assert_snapshot!(error("resources: {cpu: 0}"), @"shipper.yaml:1:18: “0” is no quantity; write it as Kubernetes does, above 0: 200m, 0.5 or 64Mi");
    assert_snapshot!(error("grace: 10"), @"shipper.yaml:1:8: “10” is no duration; write a number above 0 and ms, s or m: 500ms, 10s or 1m");
    assert_snapshot!(error("grace: soon"), @"shipper.yaml:1:8: “soon” is no duration; write a number above 0 and ms, s or m: 500ms, 10s or 1m");
    assert_snapshot!(error("stopSignal: SIGSTOPP"), @"shipper.yaml:1:13: “SIGSTOPP” is no signal; write its name, such as SIGTERM, SIGQUIT or SIGRTMIN+3");
    assert_snapshot!(error("stopSignal: 99"), @"shipper.yaml:1:13: “99” is no signal; write its name, such as SIGTERM, SIGQUIT or SIGRTMIN+3");
    assert_snapshot!(error("writable:\n- tmp"), @"shipper.yaml:2:3: “tmp” is relative; a path begins with /");
    assert_snapshot!(error("writable: [/]"), @"shipper.yaml:1:12: nothing can be mounted at the root folder; name a path below /");
    assert_snapshot!(error("files:\n  etc/x: text"), @"shipper.yaml:2:3: “etc/x” is relative; a path begins with /");
    assert_snapshot!(error("health: {http: {path: health, port: 1}}"), @"shipper.yaml:1:23: “health” does not begin with /; write the path of a URL, such as /health");
    assert_snapshot!(error("capabilities: [net_admin]"), @"shipper.yaml:1:16: “net_admin” is no capability; write its name in capitals, such as NET_BIND_SERVICE");
    assert_snapshot!(error("user: root"), @"shipper.yaml:1:7: expected a whole number, 0 or above");
    assert_snapshot!(error("user: -1"), @"shipper.yaml:1:7: expected a whole number, 0 or above");
    assert_snapshot!(error("kubernetesApi: maybe"), @"shipper.yaml:1:16: expected true or false");
    assert_snapshot!(error("logging: {delivers: kafka}"), @"shipper.yaml:1:21: unknown value “kafka”; known here: stdout, tcp, http, syslog, file");
    assert_snapshot!(error("command: /shipper"), @"shipper.yaml:1:10: expected a list");
    assert_snapshot!(error("env: [A=1]"), @"shipper.yaml:1:6: expected fields, as NAME: VALUE");
    assert_snapshot!(error("env: {A: }"), @"shipper.yaml:1:8: the text is missing");
    assert_snapshot!(error("- role"), @"shipper.yaml:1:1: expected fields, as NAME: VALUE");
}

#[test]
fn only_one_form_is_possible() {
    assert_snapshot!(error("health: {tcp: 1, exec: [/x]}"), @"shipper.yaml:1:18: only one of these is possible at once");
    assert_snapshot!(error("health:\n  tcp: 1\n  exec: [/x]"), @"shipper.yaml:3:3: only one of these is possible at once");
    assert_snapshot!(error("configReload:\n  reloads: {signal: HUP}"), @"shipper.yaml:2:12: write http, {signal: SIGHUP, process: NAME} or {file: PATH}");
    assert_snapshot!(error("configReload: {reloads: tcp}"), @"shipper.yaml:1:25: unknown way “tcp”; write http, {signal: SIGHUP, process: NAME} or {file: PATH}");
    assert_snapshot!(error("configReload: {reloads: [http]}"), @"shipper.yaml:1:16: expected http, {signal: SIGHUP, process: NAME} or {file: PATH}, found sequence");
}

#[test]
fn broken_yaml_has_its_place() {
    assert_snapshot!(logging("args: [a, b"), @"shipper.yaml:2:7: unclosed bracket '['");
    assert_snapshot!(logging("args: [--logs, {{logs}}]"), @"shipper.yaml:2:16: expected string scalar; a text that begins with a brace needs quotes");
    assert_snapshot!(logging("args: *missing"), @"shipper.yaml:2:7: alias references unknown anchor");
    assert!(read("").expect("an empty profile") == Profile::default());
}

#[test]
fn what_belongs_to_another_role_is_refused() {
    assert_snapshot!(logging("user: 1\nreverseProxy:\n  listen: 80\n"), @"shipper.yaml:3:1: “reverseProxy” is for the role reverse-proxy, and the role is logging");
    assert_snapshot!(logging("claims:\n- rename\n- drain\n"), @"shipper.yaml:4:3: role logging: unknown claim “drain”; known here: rename, truncation, inode-reuse, several-files, late-files, resume, retry, long-lines, any-bytes, last-line-without-end, half-lines, arbitrary-user, read-only-root, no-shell");
    assert_snapshot!(logging("claims: [renam]"), @"shipper.yaml:2:10: role logging: unknown claim “renam”; did you mean “rename”? known here: rename, truncation, inode-reuse, several-files, late-files, resume, retry, long-lines, any-bytes, last-line-without-end, half-lines, arbitrary-user, read-only-root, no-shell");
    assert_snapshot!(error("role: generic\nclaims: [retry]"), @"shipper.yaml:2:10: role generic: unknown claim “retry”; known here: arbitrary-user, read-only-root, no-shell");
    assert_snapshot!(error("claims: [no-shel]"), @"shipper.yaml:1:10: unknown claim “no-shel”; did you mean “no-shell”? known here: rename, truncation, inode-reuse, several-files, late-files, resume, retry, long-lines, any-bytes, last-line-without-end, half-lines, websocket, streaming, forwarded-headers, ipv6-upstream, late-upstream, upstream-by-name, preserves-path, drain, ready-after-first-sync, no-inotify, arbitrary-user, read-only-root, no-shell");
    read("claims: [drain]").expect("the role may come from the command line");
    let file = Source::new(Path::new("x.yaml"), "claims: [drain]".to_owned());
    let refused = file.profile(Some(Role::Generic)).expect_err("a fault");
    assert_snapshot!(refused, @"x.yaml:1:10: role generic: unknown claim “drain”; known here: arbitrary-user, read-only-root, no-shell");
}

#[test]
fn a_bad_file_replaces_a_file() {
    assert_snapshot!(error("files:\n  /etc/a.yaml: a\nbadFiles:\n  /etc/b.yaml: b\n"), @"shipper.yaml:4:3: badFiles replaces files: unknown file “/etc/b.yaml”; did you mean “/etc/a.yaml”? known here: /etc/a.yaml");
    assert_snapshot!(error("user: 1\nbadFiles: {/etc/b/: b}\n"), @"shipper.yaml:2:1: badFiles replaces files, and there are none");
    assert_snapshot!(error("badFiles: {/etc/b.yaml: b}\n"), @"shipper.yaml:1:12: badFiles replaces files, and there are none");
}

#[test]
fn a_placeholder_that_the_role_does_not_have_has_its_place() {
    assert_snapshot!(logging("files:\n  /etc/x: |\n    a: 1\n    b: {{sink.prt}}\n"), @"shipper.yaml:5:8: unknown placeholder “sink.prt”; did you mean “sink.port”? known here: logs, sink.host, sink.port; for the text itself write {{{{sink.prt}}");
    assert_snapshot!(logging("args:\n- --logs\n- \"{{listen}}\"\n"), @"shipper.yaml:4:4: unknown placeholder “listen”; known here: logs, sink.host, sink.port; for the text itself write {{{{listen}}");
    assert_snapshot!(logging("env: {A: 'x{{ logs }}'}\n"), @"shipper.yaml:2:12: a placeholder has no blanks: {{logs}}; for the text itself write {{{{ logs }}");
    assert_snapshot!(logging("health: {http: {path: '/{{x}}', port: 1}}\n"), @"shipper.yaml:2:25: unknown placeholder “x”; known here: logs, sink.host, sink.port; for the text itself write {{{{x}}");
    assert_snapshot!(error("role: generic\nargs: ['{{end}}']\n"), @"shipper.yaml:2:9: the role generic has no placeholders: there is no “end”; for the text itself write {{{{end}}");
    assert_snapshot!(error("args: ['{{end}}']\n"), @"shipper.yaml:1:9: unknown placeholder “end”; known here: logs, sink.host, sink.port, listen, upstream, upstream.host, upstream.port, config.dir, reload.url; for the text itself write {{{{end}}");
}

#[test]
fn placeholders_are_filled_and_other_braces_stay() {
    let values = BTreeMap::from([
        ("logs", "/logs".to_owned()),
        ("sink.host", "10.0.0.1".to_owned()),
        ("sink.port", "514".to_owned()),
    ]);
    let mut profile = read(SHIPPER).expect("a profile");
    profile.args = vec!["{\"port\":{\"n\":{{sink.port}}}}".to_owned(), "{{{logs}}}".to_owned()];
    let filled = profile.filled(&values).expect("a profile");
    let text = filled.files.values().next().expect("a file");
    assert_snapshot!(text, @r"
    read: /logs/*.log
    send: 10.0.0.1:514
    name: '{{ .Name }} {{logs}}'
    ");
    assert_eq!(filled.args, ["{\"port\":{\"n\":514}}", "{/logs}"]);

    profile.env.insert("A".to_owned(), "{{listen}}".to_owned());
    let refused = profile.filled(&values).expect_err("a fault");
    assert_snapshot!(format!("{refused:#}"), @"env.A: unknown placeholder “listen”; known here: logs, sink.host, sink.port");
}

#[test]
fn the_command_line_goes_before_the_file() {
    let given = flags(&[
        "--arg=-v",
        "--arg",
        "--x",
        "--env",
        "A=b=c",
        "--env",
        "LEVEL=debug",
        "--port",
        "81",
        "--health",
        "tcp:81",
        "--mount",
        "/var/log",
        "--delivers",
        "syslog",
        "--writable",
        "/x",
        "--user",
        "1",
        "--grace",
        "2s",
        "--claim",
        "resume",
        "--command",
        "/other",
    ]);
    let profile = read(SHIPPER)
        .expect("a profile")
        .merge(&given.expect("flags"))
        .expect("a profile");
    assert_snapshot!(profile.to_yaml().expect("YAML"), @r#"
    role: logging
    image: example.com/shipper:2
    command:
    - /other
    args:
    - -v
    - --x
    env:
      A: b=c
      LEVEL: debug
    files:
      /etc/shipper/shipper.yaml: |
        read: {{logs}}/*.log
        send: {{sink.host}}:{{sink.port}}
        name: '{{ .Name }} {{{{logs}}'
    badFiles:
      /etc/shipper/shipper.yaml: "read: ["
    ports:
    - 81
    health:
      tcp: 81
    user: 1
    capabilities:
    - NET_BIND_SERVICE
    writable:
    - /x
    resources:
      cpu: "0.5"
      memory: 64Mi
    stopSignal: SIGQUIT
    grace: 2s
    kubernetesApi: true
    claims:
    - resume
    logging:
      mount: /var/log
      delivers: syslog
    "#);
    let unchanged = read(SHIPPER)
        .expect("a profile")
        .merge(&Overrides::default())
        .expect("a profile");
    assert_eq!(unchanged, read(SHIPPER).expect("a profile"));
    let nothing = Profile::default().merge(&Overrides::default()).expect("a profile");
    assert_eq!(nothing, Profile::default());
}

#[test]
fn a_wrong_flag_is_a_clear_error() {
    assert_snapshot!(flag_error(&["--port", "http"]), @"error: invalid value 'http' for '--port <PORT>': “http” is no port; a port is a number from 1 to 65535");
    assert_snapshot!(flag_error(&["--env", "A"]), @"error: invalid value 'A' for '--env <NAME=VALUE>': write NAME=VALUE");
    assert_snapshot!(flag_error(&["--health", "icmp"]), @"error: invalid value 'icmp' for '--health <HOW>': write http:PORT/PATH, tcp:PORT or exec:COMMAND");
    assert_snapshot!(flag_error(&["--health", "http:8080"]), @"error: invalid value 'http:8080' for '--health <HOW>': the path is missing; write http:8080/health");
    assert_snapshot!(flag_error(&["--delivers", "kafka"]), @"error: invalid value 'kafka' for '--delivers <WHERE>': unknown way “kafka”; known here: stdout, tcp, http, syslog, file:PATH");
    assert_snapshot!(flag_error(&["--grace", "10"]), @"error: invalid value '10' for '--grace <DURATION>': “10” is no duration; write a number above 0 and ms, s or m: 500ms, 10s or 1m");
    assert_snapshot!(flag_error(&["--writable", "tmp"]), @"error: invalid value 'tmp' for '--writable <PATH>': “tmp” is relative; a path begins with /");
    assert_snapshot!(flag_error(&["--claim", "renam"]), @"error: invalid value 'renam' for '--claim <CLAIM>'");
    let merged = |arguments: &[&str]| {
        let merged = Profile::default().merge(&flags(arguments).expect("flags"));
        merged.expect_err("a fault").to_string()
    };
    assert_snapshot!(merged(&["--mount", "/x"]), @"--mount needs --role too, or a profile that says the role");
    assert_snapshot!(merged(&["--role", "generic", "--mount", "/x"]), @"--mount is for the roles logging and config-reload, not for generic");
    assert_snapshot!(merged(&["--role", "generic", "--delivers", "tcp"]), @"--delivers is for the role logging, not for generic");
    assert_snapshot!(merged(&["--role", "reverse-proxy", "--claim", "rename"]), @"claims.0: role reverse-proxy: unknown claim “rename”; known here: websocket, streaming, forwarded-headers, ipv6-upstream, late-upstream, upstream-by-name, preserves-path, drain, arbitrary-user, read-only-root, no-shell");
}

#[test]
fn the_image_says_what_the_profile_does_not() {
    let image = ImageDefaults {
        user: Some("101:101".to_owned()),
        exposed: vec![80],
        stop_signal: Some("3".to_owned()),
        labels: BTreeMap::from([
            ("dev.sidecheck.role".to_owned(), "reverse-proxy".to_owned()),
            ("dev.sidecheck.claims".to_owned(), "drain, websocket".to_owned()),
        ]),
        ..ImageDefaults::default()
    };
    let profile = Profile::default().with_defaults(&image).expect("a profile");
    assert_eq!(
        serde_json::to_value(&profile).expect("JSON"),
        json!({"role": "reverse-proxy", "ports": [80], "user": 101, "stopSignal": "SIGQUIT", "claims": ["drain", "websocket"]})
    );
    assert_eq!(profile.ports(), [80, 8080]);
    assert!(profile.claims(Claim::Drain) && !profile.claims(Claim::NoShell));

    let profile = read("role: generic\nports: []\nuser: 1\nstopSignal: TERM\nclaims: []\n").expect("a profile");
    assert_eq!(profile.clone().with_defaults(&image).expect("a profile"), profile);

    let refused = |name: &str, value: &str| {
        let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let image = ImageDefaults {
            labels,
            ..image.clone()
        };
        format!("{:#}", Profile::default().with_defaults(&image).expect_err("a fault"))
    };
    assert_snapshot!(refused("dev.sidecheck.role", "proxy"), @"the image's label dev.sidecheck.role: unknown role “proxy”; known here: logging, reverse-proxy, config-reload, generic");
    assert_snapshot!(refused("dev.sidecheck.claims", "drain,renam"), @"the image's label dev.sidecheck.claims: unknown claim “renam”; did you mean “rename”? known here: rename, truncation, inode-reuse, several-files, late-files, resume, retry, long-lines, any-bytes, last-line-without-end, half-lines, websocket, streaming, forwarded-headers, ipv6-upstream, late-upstream, upstream-by-name, preserves-path, drain, ready-after-first-sync, no-inotify, arbitrary-user, read-only-root, no-shell");
    let named = ImageDefaults {
        user: Some("nginx".to_owned()),
        ..ImageDefaults::default()
    };
    assert_eq!(Profile::default().with_defaults(&named).expect("a profile").user, None);
}

#[test]
fn a_role_is_needed_in_the_end() {
    assert_snapshot!(Profile::default().role().expect_err("a fault"), @"the role is missing: give --role, “role” in the profile, or the image's label dev.sidecheck.role; roles: logging, reverse-proxy, config-reload, generic");
}

#[test]
fn signals_have_one_name() {
    let signal = |text: &str| {
        text.parse()
            .map(|signal: super::Signal| signal.as_str().to_owned())
            .ok()
    };
    for text in ["TERM", "SIGTERM", "15"] {
        assert_eq!(signal(text).as_deref(), Some("SIGTERM"));
    }
    assert_eq!(signal("RTMIN+3").as_deref(), Some("SIGRTMIN+3"));
    for text in ["", "SIG", "0", "32", "term", "SIGRTMIN-3", "RTMIN+x"] {
        assert_eq!(signal(text), None, "{text}");
    }
}

/// The example with all its fields in use.
fn uncommented(text: &str) -> String {
    let is_prose = |line: &str| line.starts_with("# ") && !line.starts_with("#  ");
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(field) if !is_prose(line) && !line.contains("{{") => field,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a profile does not fit the schema.
fn faults(profile: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    validator.iter_errors(profile).map(|fault| fault.to_string()).collect()
}

#[test]
fn examples_are_valid_and_have_every_field() {
    let mut seen = Vec::new();
    for role in Role::value_variants() {
        let example = Profile::init(*role);
        assert_eq!(read(&example).expect(&example).role, Some(*role));
        for text in [&example, &uncommented(&example)] {
            let profile = read(text).expect(text);
            let json: Value = serde_saphyr::from_str(text).expect("YAML");
            assert_eq!(faults(&json), [""; 0], "{text}");
            assert_eq!(
                faults(&serde_json::to_value(&profile).expect("JSON")),
                [""; 0],
                "{text}"
            );
            seen.extend(json.as_object().expect("an object").keys().cloned());
        }
        assert_eq!(
            read(&uncommented(&example)).expect("a profile").claims,
            Some(role.claims())
        );
    }
    let schema = schema();
    let fields = schema["properties"].as_object().expect("fields");
    let missing: Vec<&String> = fields.keys().filter(|field| !seen.contains(field)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_snapshot!(Profile::init(Role::ConfigReload), @r#"
    # What a sidecar's image is and does. Remove the # before a field to use it.

    # It makes main use its configuration as soon as that has changed.
    role: config-reload

    configReload:
      # Where it finds main's configuration.
      mount: /config
      # How it makes main use it: http, {signal: SIGHUP, process: main}, or {file: /out/config.yaml}.
      reloads: http

    # The image, unless the command line names it.
    #image: example.com/sidecar:1.0

    # What it runs, in place of the image's ENTRYPOINT and CMD.
    #command: [/sidecar]
    #args: [--config, /etc/sidecar/sidecar.yaml]

    # Environment variables.
    #env: {LEVEL: info}

    # Files that it needs, read-only.
    #files:
    #  /etc/sidecar/sidecar.yaml: |
    #    level: info

    # The same files with a wrong text: with it, the image must end with another status than 0 and say why.
    #badFiles:
    #  /etc/sidecar/sidecar.yaml: "level: ["

    # The TCP ports that it opens; by default those of the image's EXPOSE.
    #ports: [8080]

    # How to see that it works: {http: {path: /health, port: 8080}}, {tcp: 8080} or {exec: [/check]}.
    #health: {http: {path: /health, port: 8080}}

    # The number of the user that it runs as; by default the image's USER.
    #user: 10001

    # The Linux capabilities that it needs; it gets no others.
    #capabilities: [NET_BIND_SERVICE]

    # The folders that it must be able to write to.
    #writable: [/tmp]

    # What it may use at most.
    #resources: {cpu: 200m, memory: 64Mi}

    # The signal that makes it end; by default the image's STOPSIGNAL.
    #stopSignal: SIGTERM

    # How long it may take to end: 500ms, 10s or 1m.
    #grace: 10s

    # How long it may take from its start until it is ready.
    #startup: 60s

    # Whether it needs a token of the Kubernetes API, which it never gets.
    #kubernetesApi: false

    # What it can do beyond what its role asks of each image. Only what is claimed is checked.
    #claims:
    #- retry                   # It waits for what is away, the sink that it sends to or the application that it tells to reload, and tries again.
    #- ready-after-first-sync  # It is ready only after main uses the configuration for the first time.
    #- no-inotify              # Without inotify, it notices a change all the same, or ends and says why.
    #- arbitrary-user          # It runs as any user, also one that is not in /etc/passwd.
    #- read-only-root          # It does all its work with a read-only root file system.
    #- no-shell                # There is no shell in the image.

    # Placeholders, for command, args, env, files, badFiles and the path of health.
    # {{{{ stands for two braces. Other double braces stay as they are, such as {{ .Name }}.
    #   {{config.dir}}  the folder with main's configuration
    #   {{reload.url}}  the URL that makes main reload its configuration
    "#);
}

#[test]
fn every_claim_belongs_to_a_role() {
    for claim in Claim::value_variants() {
        assert!(
            Role::value_variants().iter().any(|role| role.claims().contains(claim)),
            "{claim}"
        );
        assert!(claim.description().starts_with(|c: char| c.is_uppercase()), "{claim}");
    }
}

#[test]
fn the_schema_refuses_what_a_profile_refuses() {
    for text in [
        "healt: {tcp: 1}",
        "role: proxy",
        "ports: [0]",
        "grace: 10",
        "writable: [tmp]",
        "writable: [/]",
        "files: {etc/x: text}",
        "resources: {memory: 64MB}",
        "resources: {disk: 1}",
        "health: {tcp: 1, exec: [/x]}",
        "health: {http: {path: health, port: 1}}",
        "logging: {delivers: kafka}",
        "configReload: {reloads: {signal: HUP}}",
        "claims: [renam]",
    ] {
        assert!(read(text).is_err(), "{text}");
        let json: Value = serde_saphyr::from_str(text).expect("YAML");
        assert!(!faults(&json).is_empty(), "{text}");
    }
    assert_eq!(faults(&serde_saphyr::from_str(SHIPPER).expect("YAML")), [""; 0]);
}

#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/profile.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, format!("{:#}\n", schema())).expect("a file");
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        serde_json::from_str(&published).is_ok_and(|published: Value| published == schema()),
        "docs/profile.schema.json is not that of the code; write it with UPDATE_SCHEMA=1 and this test"
    );
}

#[test]
fn the_path_of_a_url_begins_with_a_slash() {
    assert!("/".parse::<UrlPath>().is_ok() && "".parse::<UrlPath>().is_err());
}
