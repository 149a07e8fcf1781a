// SPDX-License-Identifier: Apache-2.0
//! Chat templates rendered as transformers does it with Jinja2: the same white-space options, globals and filters
//! (transformers/utils/chat_template_utils.py), and Python's way of printing and trimming.

use std::ffi::CString;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::{globals, pycompat};

use crate::generation_tags;
use crate::python_json::tojson;
use crate::python_text::{is_space, str_of};

const NAME: &str = "chat_template";

pub struct ChatTemplate {
    environment: Environment<'static>,
    has_generation_tags: bool,
}

/// A rendered conversation.
#[derive(Debug)]
pub struct Rendering {
    pub text: String,
    /// Byte spans of the template's `{% generation %}` blocks.
    pub generation_spans: Vec<(usize, usize)>,
}

/// Of one rendering: seconds. Real templates take some hundred for a message; one that loops for ever is an error.
const MOST_INSTRUCTIONS: u64 = 20_000_000;

impl ChatTemplate {
    /// Compiles `source`. `now` (seconds since 1970) is what `strftime_now` shows, in local time.
    pub fn compile(source: &str, now: i64) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(MOST_INSTRUCTIONS));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(|out, _, value| out.write_str(&str_of(value)).map_err(Error::from));
        environment.set_unknown_method_callback(python_method);
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", |value: &Value| str_of(value));
        environment.add_filter("trim", |value: &Value, chars: Option<String>| strip(&str_of(value), chars, true, true));
        environment.add_filter(generation_tags::FILTER, |value: &Value| {
            format!("{}{}{}", generation_tags::BEGIN, str_of(value), generation_tags::END)
        });
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: &str| strftime(format, now));
        environment.add_function("cycler", globals::cycler);
        environment.add_function("joiner", globals::joiner);

        let rewritten = generation_tags::rewrite(source);
        let has_generation_tags = rewritten.is_some();
        let source = rewritten.unwrap_or_else(|| source.to_owned());
        environment.add_template_owned(NAME, source).map_err(|error| describe(&error))?;
        Ok(Self { environment, has_generation_tags })
    }

    pub fn has_generation_tags(&self) -> bool {
        self.has_generation_tags
    }

    /// Renders with the variables of a JSON object (`messages`, `add_generation_prompt`, `bos_token`, …).
    pub fn render(&self, variables: &str) -> Result<Rendering, String> {
        let marks = [generation_tags::BEGIN, generation_tags::END];
        if self.has_generation_tags && variables.contains(marks) {
            return Err("the conversation contains U+FDD0 or U+FDD1, which are no characters; remove them".to_owned());
        }
        let variables: serde_json::Value = serde_json::from_str(variables).map_err(|error| error.to_string())?;
        let template = self.environment.get_template(NAME).map_err(|error| describe(&error))?;
        let text = template.render(Value::from_serialize(variables)).map_err(|error| describe(&error))?;
        if !self.has_generation_tags {
            return Ok(Rendering { text, generation_spans: Vec::new() });
        }
        let (text, generation_spans) = generation_tags::split(&text);
        Ok(Rendering { text, generation_spans })
    }
}

/// "message (template line 12)", and the reasons behind it.
fn describe(error: &Error) -> String {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let mut text = match error.line() {
        Some(line) => format!("{message} (line {line} of the template)"),
        None => message,
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn python_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), [] | [_]) = (value.as_str(), args) {
        let chars = args.first().filter(|chars| !chars.is_none()).map(|chars| chars.to_string());
        match method {
            "strip" => return Ok(strip(text, chars, true, true).into()),
            "lstrip" => return Ok(strip(text, chars, true, false).into()),
            "rstrip" => return Ok(strip(text, chars, false, true).into()),
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

fn strip(text: &str, chars: Option<String>, left: bool, right: bool) -> String {
    let goes = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }.to_owned()
}

/// `datetime.now().strftime(format)`: Python itself asks the C library.
fn strftime(format: &str, now: i64) -> Result<String, Error> {
    let invalid = |_| Error::new(ErrorKind::InvalidOperation, "strftime_now: the format contains a NUL");
    let format = CString::new(format).map_err(invalid)?;
    let now = now as libc::time_t;
    let mut out = vec![0u8; 256 + 16 * format.as_bytes().len()];
    // SAFETY: `tm` is written by localtime_r before it is read (all zeros is a valid value); `out` has the size that is
    // passed, and both strings are NUL-terminated.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut tm);
        libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), &tm)
    };
    out.truncate(length);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, variables: serde_json::Value) -> Result<String, String> {
        Ok(ChatTemplate::compile(source, 0)?.render(&variables.to_string())?.text)
    }

    #[test]
    fn blocks_are_trimmed_as_in_transformers() {
        let source =
            "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
        let text = render(source, json!({"messages": [{"content": "a"}, {"content": "b"}]}));
        assert_eq!(text.unwrap(), "a\nb\nend");
    }

    #[test]
    fn values_print_as_in_python() {
        let text = render("{{ true }} {{ none }} {{ x }} {{ y }}|{{ missing }}", json!({"x": {"a": 1.0}, "y": "é"}));
        assert_eq!(text.unwrap(), "True None {'a': 1.0} é|");
    }

    #[test]
    fn tojson_is_json_dumps() {
        let value = json!({"value": {"é": [1, 2.5, "<\u{1}\n>"], "e": {}, "b": [true, null]}});
        assert_eq!(
            render("{{ value | tojson }}", value.clone()).unwrap(),
            r#"{"é": [1, 2.5, "<\u0001\n>"], "e": {}, "b": [true, null]}"#
        );
        assert_eq!(
            render("{{ value | tojson(indent=2) }}", value.clone()).unwrap(),
            "{\n  \"é\": [\n    1,\n    2.5,\n    \"<\\u0001\\n>\"\n  ],\n  \"e\": {},\n  \"b\": [\n    true,\n    null\n  ]\n}"
        );
        let compact = "{{ value | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}";
        assert_eq!(render(compact, value).unwrap(), r#"{"b":[true,null],"e":{},"\u00e9":[1,2.5,"<\u0001\n>"]}"#);
    }

    #[test]
    fn raise_exception_gives_the_message_and_the_line() {
        let error = render("\n{{ raise_exception('roles must alternate') }}", json!({})).unwrap_err();
        assert_eq!(error, "roles must alternate (line 2 of the template)");
    }

    #[test]
    fn loop_controls_namespace_and_string_methods_work() {
        let source = "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% if m == 'stop' %}{% break %}\
                      {% endif %}{% set ns.n = ns.n + 1 %}{{ m.split('|')[-1].lstrip('-') }}{% endfor %}{{ ns.n }}";
        assert_eq!(render(source, json!({"messages": ["x", "stop", "a|--b", "c"]})).unwrap(), "cb2");
    }

    #[test]
    fn trimming_counts_the_separators_that_python_counts() {
        let text = render("[{{ x | trim }}][{{ x.strip() }}][{{ x.rstrip() }}]", json!({"x": "\u{1f} a\u{a0}\u{1c}"}));
        assert_eq!(text.unwrap(), "[a][a][\u{1f} a]");
    }

    #[test]
    fn strftime_now_shows_the_injected_time() {
        // Local time zones differ by at most 14 hours.
        let text =
            ChatTemplate::compile("{{ strftime_now('%d %b %Y') }}", 1_700_000_000).unwrap().render("{}").unwrap().text;
        assert!(["14 Nov 2023", "15 Nov 2023"].contains(&text.as_str()), "{text}");
    }

    #[test]
    fn generation_spans_frame_the_assistant() {
        let source =
            "{% for m in messages %}\n{% if m.role == 'assistant' %}\n<a>{% generation %}\n{{ m.content }}</a>\
                      {% endgeneration %}\n{% else %}\n<u>{{ m.content }}</u>\n{% endif %}\n{% endfor %}";
        let template = ChatTemplate::compile(source, 0).unwrap();
        assert!(template.has_generation_tags());
        let messages = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "né"}]});
        let rendering = template.render(&messages.to_string()).unwrap();
        assert_eq!(rendering.text, "<u>hi</u>\n<a>né</a>");
        assert_eq!(rendering.generation_spans, [(13, 20)]);
    }

    #[test]
    fn a_template_that_never_ends_is_an_error() {
        let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        assert!(render(endless, serde_json::json!({})).unwrap_err().contains("fuel"));
    }

    #[test]
    fn a_broken_template_is_an_error() {
        let error = ChatTemplate::compile("line one\n{% for %}", 0).err().unwrap();
        assert!(error.contains("line 2 of the template"), "{error}");
    }
}
