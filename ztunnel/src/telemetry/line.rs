//! How a log line looks: tab-separated head and `key=value` pairs, or one JSON object.

use std::fmt::{self, Write};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

const TIMESTAMP: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Bytes of one value. Part of the values come from peers, and a line that nobody reads
/// for a while is held in memory.
const LONGEST: usize = 1024;

/// The field that `tracing` keeps the text of an event in.
const MESSAGE: &str = "message";

/// The two layouts, both as Istio's ztunnel writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `time \t level \t target \t message \t key=value ...`
    Plain,
    /// One object with `level`, `time`, `scope`, `message` and the fields.
    Json,
}

impl<S, N> FormatEvent<S, N> for Layout
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Plain => plain(writer, event),
            Self::Json => json(writer, event),
        }
    }
}

fn plain(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut fields = Pairs::default();
    event.record(&mut fields);
    let meta = event.metadata();
    write!(writer, "{}\t{}\t{}\t", timestamp(), level(*meta.level()), meta.target())?;
    one_line(&mut writer, &fields.message)?;
    if !fields.text.is_empty() {
        writer.write_char('\t')?;
        one_line(&mut writer, &fields.text)?;
    }
    writer.write_char('\n')
}

fn json(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let meta = event.metadata();
    let mut fields = Members::default();
    event.record(&mut fields);
    let head = [
        ("level", Value::from(level(*meta.level()))),
        ("time", Value::from(timestamp())),
        ("scope", Value::from(meta.target())),
        ("message", Value::from(fields.message)),
    ];
    let mut separator = '{';
    for (key, value) in head.into_iter().chain(fields.members) {
        write!(writer, "{separator}{}:{value}", Value::from(key))?;
        separator = ',';
    }
    writer.write_str("}\n")
}

/// A line stays one line, whatever a peer made us print.
fn one_line(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(writer, "{}", c.escape_default())?;
        } else {
            writer.write_char(c)?;
        }
    }
    Ok(())
}

fn timestamp() -> String {
    OffsetDateTime::now_utc().format(TIMESTAMP).unwrap_or_default()
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Fields as `key=value`; text is quoted, everything else is not.
#[derive(Default)]
struct Pairs {
    message: String,
    text: String,
}

impl Pairs {
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        // Writing to a String does not fail.
        let _ = write!(self.text, "{}={value}", field.name());
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.message.push_str(capped(value));
        } else {
            self.push(field, format_args!("{:?}", capped(value)));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = Capped::of(value);
        if field.name() == MESSAGE {
            self.message.push_str(&text);
        } else {
            self.push(field, format_args!("{text}"));
        }
    }
}

/// Fields with their types kept as far as JSON has them.
#[derive(Default)]
struct Members {
    message: String,
    members: Vec<(&'static str, Value)>,
}

impl Members {
    fn push(&mut self, field: &Field, value: Value) {
        match value {
            Value::String(text) if field.name() == MESSAGE => self.message = text,
            value => self.members.push((field.name(), value)),
        }
    }
}

impl Visit for Members {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, capped(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Capped::of(value).into());
    }
}

fn capped(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Text that takes in only so much.
#[derive(Default)]
struct Capped(String);

impl Capped {
    fn of(value: &dyn fmt::Debug) -> String {
        let mut text = Self::default();
        // Writing fails when it is full, which is fine.
        let _ = write!(text, "{value:?}");
        text.0
    }
}

impl Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}
