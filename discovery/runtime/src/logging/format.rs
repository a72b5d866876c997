//! A record as one line: text or JSON, without control characters.
//!
//! Keys of the registry, tags and header fields come from outside. A line break in one of them must not
//! begin a line, and an escape sequence must not reach a terminal. So control characters are escaped
//! in both formats, and with them the characters that separate lines or reorder text in Unicode.

#![allow(
    clippy::disallowed_types,
    reason = "the time of a record is for its readers, no decision depends on it"
)]

use std::fmt::{self, Display, Write as _};
use std::io;
use std::time::SystemTime;

use env_logger::fmt::style::{AnsiColor, Effects, Style};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Record};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::Formatter;

/// Maximum length of a message or a value, in bytes. `…` stands for what is cut off.
const MAX_VALUE_BYTES: usize = 8 << 10;

/// Fields that every JSON record has. A key of the same name gets a `_` at its end.
const RECORD_FIELDS: [&str; 4] = ["ts", "level", "target", "msg"];

/// Formats a record as `env_logger` does: `[time level target] message key=value …`
pub(super) fn text(record: &Record<'_>, has_colours: bool) -> String {
    let style = |style| if has_colours { style } else { Style::new() };
    let subtle = style(AnsiColor::BrightBlack.on_default());
    let level = style(level_style(record.level()));
    let mut line = format!(
        "{subtle}[{subtle:#}{} {level}{:<5}{level:#} {}{subtle}]{subtle:#} ",
        humantime::format_rfc3339_seconds(SystemTime::now()),
        record.level(),
        escaped(record.target()),
    );
    append_escaped(&mut line, record.args());
    let key = style(Style::new().italic());
    let visited = record.key_values().visit(&mut TextFields {
        line: &mut line,
        key,
    });
    report_incomplete(visited, &mut line);
    line
}

/// Formats a record as one JSON object.
pub(super) fn json(record: &Record<'_>) -> String {
    let mut fields = JsonFields(Vec::new());
    let visited = record.key_values().visit(&mut fields);
    let mut msg = limited(record.args());
    report_incomplete(visited, &mut msg);
    let record = JsonRecord {
        ts: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        level: record.level(),
        target: record.target(),
        msg,
        fields: fields.0,
    };
    let mut line = Vec::new();
    append_json(&record, &mut line);
    String::from_utf8(line).expect("JSON is UTF-8")
}

/// Appends a value as JSON on one line, with control characters escaped that JSON itself allows.
///
/// # Panics
/// If the value cannot be JSON, such as a map whose keys are no strings.
pub fn append_json(value: &impl Serialize, line: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(line, EscapingFormatter);
    let written = value.serialize(&mut serializer);
    written.expect("strings and numbers are JSON, and a Vec takes them");
}

/// Returns a text with its control characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    append_escaped(&mut line, text);
    line
}

/// Appends a text with its control characters escaped, as far as [`MAX_VALUE_BYTES`].
fn append_escaped(line: &mut String, text: impl Display) {
    let append = |line: &mut String, char: char| {
        if is_control(char) {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    };
    append_limited(line, append, text);
}

/// Returns a text as far as [`MAX_VALUE_BYTES`].
fn limited(text: impl Display) -> String {
    let mut line = String::new();
    append_limited(&mut line, String::push, text);
    line
}

fn append_limited(line: &mut String, append: fn(&mut String, char), text: impl Display) {
    let end = line.len() + MAX_VALUE_BYTES;
    let mut limited = Limited { line, end, append };
    if write!(limited, "{text}").is_err() {
        line.push('…');
    }
}

/// Writes up to `end` bytes, and fails then: a value of any size costs no more than that.
struct Limited<'a> {
    line: &'a mut String,
    end: usize,
    append: fn(&mut String, char),
}

impl fmt::Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.line.len() >= self.end {
                return Err(fmt::Error);
            }
            (self.append)(self.line, char);
        }
        Ok(())
    }
}

/// Returns true for C0, DEL and C1, the separators of lines and paragraphs, what changes the direction
/// of text, and the byte order mark. All of them are in the basic multilingual plane.
fn is_control(char: char) -> bool {
    let is_format = matches!(
        char,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    );
    char.is_control() || is_format
}

/// Compact JSON that escapes what [`is_control`] finds. Characters below U+0020 are escaped by
/// `serde_json`.
struct EscapingFormatter;

impl Formatter for EscapingFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some((at, control)) = rest.char_indices().find(|(_, char)| is_control(*char)) {
            write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(control))?;
            rest = &rest[at + control.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

struct TextFields<'a> {
    line: &'a mut String,
    key: Style,
}

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let style = self.key;
        write!(self.line, " {style}{}{style:#}=", escaped(key.as_str()))?;
        append_escaped(self.line, value);
        Ok(())
    }
}

/// Fields of a JSON record, in their order, with a name each.
struct JsonFields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for JsonFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut name = key.as_str().to_owned();
        while RECORD_FIELDS.contains(&name.as_str())
            || self.0.iter().any(|(other, _)| *other == name)
        {
            name.push('_');
        }
        self.0.push((name, json_value(&value)));
        Ok(())
    }
}

/// Keeps numbers and booleans; everything else is text.
fn json_value(value: &Value<'_>) -> serde_json::Value {
    if let Some(number) = value.to_u64() {
        number.into()
    } else if let Some(number) = value.to_i64() {
        number.into()
    } else if let Some(number) = value.to_f64() {
        number.into()
    } else if let Some(boolean) = value.to_bool() {
        boolean.into()
    } else {
        limited(value).into()
    }
}

struct JsonRecord<'a> {
    ts: String,
    level: Level,
    target: &'a str,
    msg: String,
    fields: Vec<(String, serde_json::Value)>,
}

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ts", &self.ts)?;
        map.serialize_entry("level", self.level.as_str())?;
        map.serialize_entry("target", self.target)?;
        map.serialize_entry("msg", &self.msg)?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Marks a record whose keys and values could not all be read.
fn report_incomplete(visited: Result<(), kv::Error>, text: &mut String) {
    if visited.is_err() {
        *text += " …";
    }
}

fn level_style(level: Level) -> Style {
    match level {
        Level::Trace => AnsiColor::Cyan.on_default(),
        Level::Debug => AnsiColor::Blue.on_default(),
        Level::Info => AnsiColor::Green.on_default(),
        Level::Warn => AnsiColor::Yellow.on_default(),
        Level::Error => AnsiColor::Red.on_default().effects(Effects::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::kv::Source;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Any text, with many of the characters that must be escaped.
    fn any_text() -> impl Strategy<Value = String> {
        let control = prop::sample::select(
            &[
                '\n', '\r', '\t', '\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}',
                '\u{202e}', '\u{2066}', '\u{feff}', '"', '\\', '=', ' ', 'é', '😀',
            ][..],
        );
        vec(prop_oneof![3 => control, 1 => any::<char>()], 0..40)
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn any_fields() -> impl Strategy<Value = Vec<(String, String)>> {
        let key = prop_oneof![3 => any_text(), 1 => "ts|level|target|msg|a"];
        vec((key, any_text()), 0..4)
    }

    fn formatted(
        target: &str,
        message: &str,
        fields: &dyn Source,
        format: impl Fn(&Record<'_>) -> String,
    ) -> String {
        let mut record = Record::builder();
        record.level(Level::Warn).target(target).key_values(fields);
        format(&record.args(format_args!("{message}")).build())
    }

    proptest! {
        #[test]
        fn a_text_record_has_no_control_character(target in any_text(), message in any_text(), fields in any_fields()) {
            let fields: Vec<_> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let line = formatted(&target, &message, &fields.as_slice(), |record| text(record, false));
            prop_assert!(!line.chars().any(is_control), "{line:?}");
            let coloured = formatted(&target, &message, &fields.as_slice(), |record| text(record, true));
            let escapes = coloured.matches('\u{1b}').count();
            prop_assert_eq!(escapes, 6 + 2 * fields.len(), "those of the styles only: {:?}", coloured);
        }

        #[test]
        fn a_json_record_is_one_line_that_reads_back(target in any_text(), message in any_text(), fields in any_fields()) {
            let pairs: Vec<_> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let line = formatted(&target, &message, &pairs.as_slice(), json);
            prop_assert!(!line.chars().any(is_control), "{line:?}");
            let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read["target"], &target);
            prop_assert_eq!(&read["msg"], &message);
            prop_assert_eq!(&read["level"], "WARN");
            prop_assert_eq!(read.len(), 4 + fields.len(), "each field has a name of its own: {}", line);
            let mut values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
            let fields = read.iter().filter(|(name, _)| !RECORD_FIELDS.contains(&name.as_str()));
            let mut found: Vec<_> = fields.map(|(_, value)| value.as_str().unwrap().to_owned()).collect();
            values.sort();
            found.sort();
            prop_assert_eq!(found, values);
        }
    }

    #[test]
    fn text_looks_as_env_logger_writes_it() {
        let fields = [("key", "a b"), ("n", "1")];
        let line = formatted("a::b", "message", &fields, |record| text(record, false));
        let (time, rest) = line.split_at("[2026-11-29T19:10:18Z".len());
        assert!(time.starts_with("[20") && time.ends_with('Z'), "{line}");
        assert_eq!(rest, " WARN  a::b] message key=a b n=1");
    }

    #[test]
    fn numbers_and_booleans_stay_what_they_are() {
        let fields: [(&str, Value<'_>); 4] = [
            ("nodes", 3.into()),
            ("change", (-1).into()),
            ("ratio", 0.5.into()),
            ("ok", true.into()),
        ];
        let line = formatted("a", "m", &fields, json);
        assert!(
            line.ends_with(r#""nodes":3,"change":-1,"ratio":0.5,"ok":true}"#),
            "{line}"
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(1 << 20);
        let fields = [("key", long.as_str())];
        for format in [json, |record: &Record<'_>| text(record, false)] {
            let line = formatted("a", &long, &fields, format);
            assert_eq!(line.matches("é…").count(), 2);
            assert!(line.len() < 3 * MAX_VALUE_BYTES, "{}", line.len());
        }
    }
}
