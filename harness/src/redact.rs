//! Credentials taken out of evidence, which people attach to reports and CI keeps.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a credential.
pub const REDACTED: &str = "[redacted]";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What credentials look like. The group `keep` is what stays in front of one.
static CREDENTIALS: LazyLock<Regex> = LazyLock::new(|| {
    let secret = "(?:password|passwd|passphrase|secret|token|api[_-]?key)";
    let patterns = [
        // A private key in PEM, also one that is cut off.
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z)".to_owned(),
        // `Authorization: Basic …`, as a header and in JSON.
        r#"(?i:(?P<authorization>\bauthorization["']?\s*[:=]\s*["']?)(?:[a-z-]+[ \t]+)?[^\s"',;]+)"#.to_owned(),
        r"(?i:(?P<bearer>\bbearer[ \t]+)[a-z0-9._~+/=-]{8,})".to_owned(),
        // A JSON Web Token.
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
        // AWS and GitHub.
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b".to_owned(),
        r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})".to_owned(),
        // `password=…`, `--db-token=…`, and `"password": "…"`.
        format!(r#"(?i:(?P<assigned>{secret}=["']?)[^\s"'&,;]+)"#),
        format!(r#"(?i:(?P<quoted>{secret}"\s*:\s*")(?:[^"\\]|\\.)+)"#),
    ];
    Regex::new(&patterns.join("|")).expect("the patterns are valid")
});

/// An argument after which a credential follows: `--password`.
static FLAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^--?([a-z0-9-]*-)?(password|passwd|passphrase|secret|token|api-?key)$")
        .expect("the pattern is valid")
});

/// The text without what looks like a credential.
pub fn redact_text(text: &str) -> Cow<'_, str> {
    CREDENTIALS.replace_all(text, |found: &Captures<'_>| {
        let kept = ["authorization", "bearer", "assigned", "quoted"]
            .iter()
            .find_map(|name| found.name(name))
            .map_or("", |kept| kept.as_str());
        format!("{kept}{REDACTED}")
    })
}

/// Takes out of a Kubernetes object, or a list of them, what may be a credential, and what is said twice: values of environment
/// variables whose names are not in `shown`, the data of Secrets, whatever looks like a credential in any other text, managed fields, and
/// the annotation of `kubectl apply`.
pub fn redact_object(object: &mut Value, shown: &[&str]) {
    match object {
        Value::Object(fields) => {
            if fields.get("kind").is_some_and(|kind| kind == "Secret") {
                for data in ["data", "stringData"] {
                    let values = fields.get_mut(data).and_then(Value::as_object_mut);
                    values
                        .into_iter()
                        .flatten()
                        .for_each(|(_, value)| *value = REDACTED.into());
                }
            }
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
                if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(LAST_APPLIED);
                }
            }
            if let Some(Value::Array(variables)) = fields.get_mut("env") {
                variables
                    .iter_mut()
                    .for_each(|variable| redact_variable(variable, shown));
            }
            for value in fields.values_mut() {
                redact_object(value, shown);
            }
        }
        Value::Array(items) => {
            for place in 1..items.len() {
                if items[place - 1].as_str().is_some_and(|flag| FLAG.is_match(flag)) {
                    items[place] = REDACTED.into();
                }
            }
            items.iter_mut().for_each(|item| redact_object(item, shown));
        }
        Value::String(text) => {
            if let Cow::Owned(redacted) = redact_text(text) {
                *text = redacted;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redact_variable(variable: &mut Value, shown: &[&str]) {
    if variable["name"].as_str().is_some_and(|name| shown.contains(&name)) {
        return;
    }
    if let Some(value) = variable.get_mut("value") {
        *value = REDACTED.into();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("Authorization: Basic dXNlcjpwYXNz rest", "Authorization: [redacted] rest")]
    #[case(r#"{"authorization":"Bearer abc.def"}"#, r#"{"authorization":"[redacted]"}"#)]
    #[case("sent Bearer abcdefgh12345678.", "sent Bearer [redacted]")]
    #[case("the bearer of news", "the bearer of news")]
    #[case("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl b", "a [redacted] b")]
    #[case("key AKIAABCDEFGHIJKLMNOP.", "key [redacted].")]
    #[case("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[redacted]")]
    #[case("github_pat_11ABCDEFG0abcdefghijkl", "[redacted]")]
    #[case("connect?user=a&password=hunter2&tls=1", "connect?user=a&password=[redacted]&tls=1")]
    #[case("DB_TOKEN='x y' other", "DB_TOKEN='[redacted] y' other")]
    #[case(
        r#"{"password": "hun\"ter", "user": "a"}"#,
        r#"{"password": "[redacted]", "user": "a"}"#
    )]
    #[case("the token expired: log in again", "the token expired: log in again")]
    #[case(
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
        "a\n[redacted]\nb"
    )]
    #[case("-----BEGIN PRIVATE KEY-----\nMIIE", "[redacted]")]
    #[case("line 1 of 200, 猫", "line 1 of 200, 猫")]
    fn credentials_are_taken_out_of_text(#[case] text: &str, #[case] redacted: &str) {
        assert_eq!(redact_text(text), redacted);
        assert_eq!(redact_text(redacted), redacted, "twice");
    }

    #[test]
    fn credentials_are_taken_out_of_objects() {
        let mut pod = json!({
            "kind": "Pod",
            "metadata": {
                "name": "app",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED: "{}", "note": "token=abc", "plain": "text"},
            },
            "spec": {"containers": [{
                "env": [
                    {"name": "PASSWORD", "value": "hunter2"},
                    {"name": "LINGER", "value": "0.5"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
                "args": ["--db-password", "hunter2", "--token=abc", "append /var/log/app.log 200"],
            }]},
        });
        redact_object(&mut pod, &["LINGER"]);
        let expected = json!({
            "kind": "Pod",
            "metadata": {"name": "app", "annotations": {"note": "token=[redacted]", "plain": "text"}},
            "spec": {"containers": [{
                "env": [
                    {"name": "PASSWORD", "value": "[redacted]"},
                    {"name": "LINGER", "value": "0.5"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
                "args": ["--db-password", "[redacted]", "--token=[redacted]", "append /var/log/app.log 200"],
            }]},
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn secrets_in_lists_and_pods_in_templates_are_found() {
        let mut list = json!({"kind": "List", "items": [
            {"kind": "Secret", "data": {"key": "c2VjcmV0"}, "stringData": {"key": "secret"}},
            {"kind": "Job", "spec": {"template": {"metadata": {"managedFields": []}, "spec": {
                "initContainers": [{"env": [{"name": "A", "value": "b"}]}],
            }}}},
        ]});
        redact_object(&mut list, &[]);
        let expected = json!({"kind": "List", "items": [
            {"kind": "Secret", "data": {"key": "[redacted]"}, "stringData": {"key": "[redacted]"}},
            {"kind": "Job", "spec": {"template": {"metadata": {}, "spec": {
                "initContainers": [{"env": [{"name": "A", "value": "[redacted]"}]}],
            }}}},
        ]});
        assert_eq!(list, expected);
    }
}
