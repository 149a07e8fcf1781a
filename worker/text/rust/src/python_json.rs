// SPDX-License-Identifier: Apache-2.0
//! The `tojson` filter of transformers, which is Python's `json.dumps(x, ensure_ascii=False, …)`. The bytes matter: a
//! tool's schema is part of the prompt.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::python_text::float_repr;

struct Style {
    ensure_ascii: bool,
    /// One level's indentation; none: everything on one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub fn tojson(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let given = if named.has(name) { Some(named.get::<Value>(name)?) } else { positional.get(place).cloned() };
        Ok(given.filter(|value| !value.is_none()))
    };
    let indent = match argument(1, "indent")? {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(indent) => indent.to_owned(),
            None => " ".repeat(usize::try_from(i64::try_from(indent)?.max(0)).unwrap_or(0)),
        }),
    };
    let (item_separator, key_separator) = match argument(2, "separators")? {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Style {
        ensure_ascii: argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true()),
        indent,
        item_separator,
        key_separator,
        sort_keys: argument(3, "sort_keys")?.is_some_and(|value| value.is_true()),
    };
    named.assert_all_used()?;
    let mut out = String::new();
    write_value(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn write_value(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => write_float(out, f64::try_from(value.clone())?),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                items.push((key_text(&key)?, value.get_item(&key)?));
            }
            if style.sort_keys {
                items.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
            write_container(out, ['{', '}'], &items, style, depth, |out, (key, item)| {
                write_string(out, key, style);
                out.push_str(&style.key_separator);
                write_value(out, item, style, depth + 1)
            })?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_container(out, ['[', ']'], &items, style, depth, |out, item| {
                write_value(out, item, style, depth + 1)
            })?;
        }
        kind => {
            let message = format!("tojson: a value of kind {kind} has no JSON form");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

fn write_container<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: &[T],
    style: &Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, &T) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(out, depth + 1);
        write_item(out, item)?;
    }
    if !items.is_empty() {
        new_line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn write_float(out: &mut String, x: f64) {
    out.push_str(&match x {
        x if x.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        x => float_repr(x),
    });
}

fn write_string(out: &mut String, text: &str, style: &Style) {
    let quoted = serde_json::to_string(text).expect("a string always has a JSON form");
    if !style.ensure_ascii {
        out.push_str(&quoted);
        return;
    }
    let mut units = [0; 2];
    for c in quoted.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            let mut text = String::new();
            let plain = Style {
                ensure_ascii: false,
                indent: None,
                item_separator: String::new(),
                key_separator: String::new(),
                sort_keys: false,
            };
            write_value(&mut text, key, &plain, 0)?;
            Ok(text)
        }
        kind => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: a {kind} cannot be a key"))),
    }
}
