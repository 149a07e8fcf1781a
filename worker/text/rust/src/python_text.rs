// SPDX-License-Identifier: Apache-2.0
//! How Python prints values and trims text. Templates are written for Jinja2, where `{{ true }}` is "True".

use minijinja::value::{Value, ValueKind};

/// What `str(value)` gives; an undefined value prints as nothing, as in Jinja2.
pub fn str_of(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => repr(value),
    }
}

fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float_repr),
        ValueKind::String => string_repr(value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            let items = value.try_iter().into_iter().flatten().map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&item))
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten().map(|item| repr(&item));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// Shortest digits that read back as `x`; an exponent below 1e-4 and from 1e16 on.
pub fn float_repr(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes a number");
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn string_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `str.isspace`: Unicode white space and the four ASCII separators, which Rust does not count.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_in_python() {
        let value = Value::from_serialize(serde_json::json!(
            {"a": [1, 2.0, 1e20, true, null, "it's", "say \"it's\"\n"], "b": {}}));
        let expected = r#"{'a': [1, 2.0, 1e+20, True, None, "it's", 'say "it\'s"\n'], 'b': {}}"#;
        assert_eq!(str_of(&value), expected);
        assert_eq!(str_of(&Value::UNDEFINED), "");
        assert_eq!(str_of(&Value::from("it's")), "it's");
    }

    #[test]
    fn floats_print_as_in_python() {
        let cases =
            [(0.1, "0.1"), (1e15, "1000000000000000.0"), (1e16, "1e+16"), (1.5e-5, "1.5e-05"), (1e-4, "0.0001")];
        for (value, expected) in cases {
            assert_eq!(float_repr(value), expected);
        }
    }
}
