//! Text from elsewhere, made safe to show: it cannot steer a terminal, nor look like something that it is not.

use std::borrow::Cow;
use std::io::{self, Write};

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// How many characters of one value a terminal shows.
const SHOWN: usize = 2000;

/// The text with every control and format character, but line ends and tabs, as a visible escape: `\u{1b}`, `\u{202e}`.
pub fn display_safe(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| letter != '\n' && letter != '\t' && is_unsafe(letter))
}

/// Like [`display_safe`], for a value that is shown within a line: line ends and tabs are escaped too.
pub fn display_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Prints a line. That nobody reads it any more, as behind `head`, is no fault.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// An error with its causes, each said once. What the API server answered is quoted.
pub fn explained(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref() {
            Some(kube::Error::Api(status)) => status.message.trim().to_owned(),
            _ => cause.to_string(),
        };
        if causes.last().is_none_or(|last| !last.ends_with(&text)) {
            causes.push(text);
        }
    }
    causes.join(": ")
}

/// The beginning of a long value, and how much more there is.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => text.into(),
        Some((end, _)) => format!("{}… ({} more bytes in the evidence)", &text[..end], text.len() - end).into(),
    }
}

/// Writes text on as [`display_safe`] shows it. Each write must hold whole characters.
#[derive(Debug)]
pub struct SafeWriter<W>(pub W);

impl<W: Write> Write for SafeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(display_safe(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a character acts on a terminal, or on how the characters around it are shown, instead of being shown itself.
fn is_unsafe(letter: char) -> bool {
    matches!(
        letter.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unsafe(letter) {
            safe.extend(letter.escape_unicode());
        } else {
            safe.push(letter);
        }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("\u{1b}[2Jcleared", r"\u{1b}[2Jcleared")]
    #[case("\u{1b}", r"\u{1b}")]
    #[case("user\u{202e}gpj.exe", r"user\u{202e}gpj.exe")]
    #[case(
        "\u{2066}\u{200b}\u{feff}\u{2028}\u{2029}",
        r"\u{2066}\u{200b}\u{feff}\u{2028}\u{2029}"
    )]
    #[case("\r\u{7f}\u{9b}", r"\u{d}\u{7f}\u{9b}")]
    #[case("two\n\tlines, “é” and 猫", "two\n\tlines, “é” and 猫")]
    fn what_acts_instead_of_being_shown_is_escaped(#[case] text: &str, #[case] safe: &str) {
        assert_eq!(display_safe(text), safe);
    }

    #[test]
    fn no_character_gets_through_that_is_not_shown() {
        for letter in char::MIN..=char::MAX {
            let text = letter.to_string();
            let safe = display_safe(&text);
            let acts = letter.is_control() && letter != '\n' && letter != '\t';
            assert!(!acts || safe != text, "{letter:?}");
            assert_eq!(display_safe(&safe), safe, "{letter:?} is escaped twice");
            assert!(!display_line(&text).contains(char::is_control), "{letter:?}");
        }
    }

    #[test]
    fn what_can_be_read_stays_as_it_is() {
        let readable = (' '..='~').chain('à'..='ÿ').chain('а'..='я').chain('가'..='힣');
        for letter in readable {
            assert_eq!(display_line(&letter.to_string()), letter.to_string());
        }
    }

    #[rstest]
    #[case(SHOWN - 1, None)]
    #[case(SHOWN, None)]
    #[case(SHOWN + 1, Some("… (2 more bytes in the evidence)"))]
    #[case(SHOWN + 100, Some("… (200 more bytes in the evidence)"))]
    fn a_long_value_is_cut_between_characters(#[case] length: usize, #[case] rest: Option<&str>) {
        let text = "é".repeat(length);
        let expected = rest.map_or(text.clone(), |rest| format!("{}{rest}", "é".repeat(SHOWN)));
        assert_eq!(shortened(&text), expected);
    }

    #[test]
    fn what_is_written_is_safe() {
        let mut writer = SafeWriter(Vec::new());
        writer.write_all("a \u{1b}[1m\n".as_bytes()).expect("written");
        assert_eq!(writer.0, b"a \\u{1b}[1m\n");
    }
}
