//! What people give on the command line: spans of time, JSON, files, names in paths.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use codeq_plugin::Instant;
use jiff::{Span, SpanRelativeTo};
use serde_json::value::RawValue;

use crate::cli::Failure;

/// Larger inputs are refused before they fill the memory, in bytes. Hosts take less.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Reads a span such as `30s`, `1h30m` or `2 days`; a bare number is seconds.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time: write it like 30s, 5m or 1h30m");
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(exact).map_err(|_| format!("`{text}` lies in the past: leave the sign out"))
}

/// Checks a moment such as `2027-01-31T08:00:00Z`.
pub(super) fn moment(text: &str) -> Result<String, String> {
    match Instant::parse_rfc3339(text.trim()) {
        Some(_) => Ok(text.trim().to_owned()),
        None => {
            Err(format!("`{text}` is no moment in RFC 3339: write it like 2027-01-31T08:00:00Z"))
        }
    }
}

/// Checks a name that becomes part of a request's path.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".into()),
        // In a path these are directories, however they are written.
        "." | ".." => Err(format!("`{text}` cannot be a name")),
        name => Ok(name.to_owned()),
    }
}

/// JSON that is given as it is, as `@FILE`, or as `-` for standard input. It stays as it was written.
pub(super) fn json(what: &str, given: &str) -> Result<Box<RawValue>, Failure> {
    let text = match given {
        "-" => utf8(what, read(what, "standard input", io::stdin().lock())?)?,
        given => match given.strip_prefix('@') {
            Some(file) => utf8(what, file_contents(what, Path::new(file))?)?,
            None => given.to_owned(),
        },
    };
    RawValue::from_string(text.trim().to_owned()).map_err(|error| {
        let hint = match given {
            "-" => "",
            given if given.starts_with('@') => "",
            _ => ": write a text as '\"text\"', and a file's name as @FILE",
        };
        Failure::Wrong(format!("{what} is not JSON: {error}{hint}"))
    })
}

/// What is in a file.
pub(super) fn file_contents(what: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    let place = format!("the file `{}`", file.display());
    let opened = File::open(file)
        .map_err(|error| Failure::Wrong(format!("{what}: {place} cannot be read: {error}")))?;
    read(what, &place, opened)
}

fn read(what: &str, place: &str, from: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Wrong(format!("{what}: {place} cannot be read: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        let most = LARGEST / (1024 * 1024);
        return Err(Failure::Wrong(format!("{what}: {place} has more than {most} MiB")));
    }
    Ok(bytes)
}

fn utf8(what: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::Wrong(format!("{what} is not JSON: not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30min", 5_400_000),
            ("2 days", 172_800_000),
            ("250ms", 250),
            ("7", 7000),
            ("0.5", 500),
            ("PT1M", 60_000),
            ("0s", 0),
        ] {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "soon", "-5s", "5 s ago", "1 month", "-1", "nan", "inf", "1e400"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let text = r#"{"b": 1.50, "a": 12345678901234567890123}"#;
        let Ok(json) = json("PAYLOAD", &format!("\n{text} ")) else { panic!("it is JSON") };
        assert_eq!(json.get(), text);
    }

    #[test]
    fn what_is_no_json_is_refused_with_a_hint() {
        for text in ["hello", "{a: 1}", "", "1 2"] {
            let Err(Failure::Wrong(said)) = json("PAYLOAD", text) else {
                panic!("{text} is taken")
            };
            assert!(said.starts_with("PAYLOAD is not JSON") && said.contains("@FILE"), "{said}");
        }
        let Err(Failure::Wrong(said)) = json("PAYLOAD", "@/no/such") else { panic!("it is taken") };
        assert!(said.contains("`/no/such` cannot be read"), "{said}");
    }

    #[test]
    fn a_name_that_would_change_the_path_is_refused() {
        for text in ["", " ", ".", ".."] {
            assert!(name(text).is_err(), "{text}");
        }
        assert_eq!(name(" a/b?c "), Ok("a/b?c".into()));
    }
}
