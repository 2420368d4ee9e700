//! How the program writes to people: aligned, coloured on a terminal only, plain in a pipe.

use std::{
    fmt,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use tabwriter::TabWriter;

pub(super) const NAME: Style = AnsiColor::Cyan.on_default().bold();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const HEADING: Style = Style::new().bold();

/// A text in a style.
pub(super) fn in_style(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes rows whose columns are separated by tabs, aligned.
pub(super) fn table(rows: &[String]) {
    let _ = write(&aligned(rows));
}

/// The text of such rows.
pub(super) fn aligned(rows: &[String]) -> String {
    let mut table = TabWriter::new(Vec::new()).padding(2).ansi(true);
    // Writing to a Vec cannot fail.
    for row in rows {
        let _ = writeln!(table, "{row}");
    }
    let bytes = table.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn line(text: impl fmt::Display) {
    let _ = write(&format!("{text}\n"));
}

pub(super) fn error(message: &str) {
    let _ = writeln!(anstream::stderr(), "{}: {message}", in_style(BAD, "error"));
}

pub(super) fn warning(message: impl fmt::Display) {
    let style = AnsiColor::Yellow.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{}: {message}", in_style(style, "warning"));
}

/// Something that people should know, under a word for what it is about.
pub(super) fn note(word: &str, message: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{}: {message}", in_style(NAME, word));
}

/// Some lines beside a command's output.
pub(super) fn to_people(text: &str) {
    let _ = write!(anstream::stderr(), "{text}");
}

/// A reader that has gone away, such as `head`, is no reason to complain; whoever goes on for ever
/// wants to know.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}
