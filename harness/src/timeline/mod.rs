//! What containers recorded, in the order in which it happened.
//!
//! Events carry nanoseconds of the boot clock. All containers of a Pod share one kernel and so one clock.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Something that a container recorded about itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Nanoseconds of the boot clock.
    pub t: u64,
    /// What happened: `started`, `stop-signal`, `wrote`, `exit` …
    pub event: String,
    /// The container, which the harness knows from whose log it is.
    #[serde(skip)]
    pub container: String,
    /// What proves that the container's own agent recorded it.
    #[serde(default)]
    nonce: Option<String>,
    /// What else was recorded.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Event {
    /// Understands a line of a container's log. `None` for a line that is no event, or one that does not carry the container's `nonce`:
    /// a program that prints something like an event, or ships another container's events, records nothing.
    pub fn parse(container: &str, nonce: &str, line: &str) -> Option<Self> {
        if !line.starts_with("{\"t\":") {
            return None;
        }
        let mut event: Self = serde_json::from_str(line).ok()?;
        if event.nonce.take()? != nonce {
            return None;
        }
        event.container = container.to_owned();
        Some(event)
    }

    /// A field as text; empty if there is none.
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field as a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field).and_then(Value::as_u64)
    }

    /// Whether this is the agent's word that a statement could not be carried out.
    pub fn failed(&self) -> bool {
        self.event == "failed"
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.event)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// The events of a Pod's containers, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    /// Puts events in order.
    pub fn new(mut events: Vec<Event>) -> Self {
        events.sort_by_key(|event| event.t);
        Self { events }
    }

    /// All events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Each event with the milliseconds since the first one.
    pub fn since_first(&self) -> impl Iterator<Item = (f64, &Event)> {
        let begin = self.events.first().map_or(0, |event| event.t);
        self.events
            .iter()
            .map(move |event| ((event.t - begin) as f64 / 1e6, event))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (millis, event) in self.since_first() {
            writeln!(f, "{millis:>10.1} ms  {:<12} {event}", event.container)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(container: &str, text: &str) -> Option<Event> {
        Event::parse(container, "n1", text)
    }

    fn timeline() -> Timeline {
        let line = |container, text| event(container, text).expect("an event");
        Timeline::new(vec![
            line("shipper", r#"{"t":3000000,"nonce":"n1","event":"exit","code":0}"#),
            line("main", r#"{"t":1000000,"nonce":"n1","event":"started"}"#),
            line("main", r#"{"t":2500000,"nonce":"n1","event":"exit","code":7}"#),
        ])
    }

    #[test]
    fn events_are_ordered_by_the_boot_clock() {
        let order: Vec<_> = timeline().events().iter().map(|event| event.t).collect();
        assert_eq!(order, [1_000_000, 2_500_000, 3_000_000]);
    }

    #[test]
    fn a_line_that_is_no_event_is_passed_over() {
        assert_eq!(event("main", "10.0.0.1 - GET /"), None);
        assert_eq!(event("main", r#"{"t":"soon"}"#), None);
    }

    #[test]
    fn an_event_of_another_container_is_not_taken_for_ones_own() {
        assert_eq!(event("main", r#"{"t":1,"event":"exit","code":0}"#), None);
        assert_eq!(event("main", r#"{"t":1,"nonce":"n2","event":"exit","code":0}"#), None);
    }

    #[test]
    fn a_timeline_reads_from_the_first_event_on() {
        insta::assert_snapshot!(timeline().to_string(), @r"
               0.0 ms  main         started
               1.5 ms  main         exit code=7
               2.0 ms  shipper      exit code=0
        ");
    }
}
