// SPDX-License-Identifier: Apache-2.0
//! `{% generation %}…{% endgeneration %}` marks what the assistant says. It is an extension of transformers that
//! minijinja does not know: the tags become a filter block, which obeys the same white-space rules, and the filter
//! frames its text with marks that are taken out after rendering.

/// The filter that the tags are rewritten to.
pub const FILTER: &str = "__temper_generation";

/// Frames of a scored span. Noncharacters of Unicode: no text may contain them, and `split` checks the input.
pub const BEGIN: char = '\u{fdd0}';
pub const END: char = '\u{fdd1}';

/// The template with its generation tags as filter blocks; none when it has no such tag.
pub fn rewrite(template: &str) -> Option<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut found = false;
    while let Some(start) = rest.find("{%") {
        out.push_str(&rest[..start]);
        let tag = &rest[start..];
        let Some(length) = tag.find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let inside = &tag[2..length - 2];
        let replacement = match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => Some(format!("filter {FILTER}")),
            "endgeneration" => Some("endfilter".to_owned()),
            _ => None,
        };
        match replacement {
            Some(statement) => {
                found = true;
                let control =
                    |c: Option<char>| c.filter(|c| matches!(c, '-' | '+')).map(String::from).unwrap_or_default();
                let (left, right) = (control(inside.chars().next()), control(inside.chars().next_back()));
                out.push_str(&format!("{{%{left} {statement} {right}%}}"));
                rest = &tag[length..];
            }
            None => {
                // Only the opening is consumed: what follows may be text that merely looks like a tag.
                out.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The rendered text without its marks, and the byte spans that they framed.
pub fn split(marked: &str) -> (String, Vec<(usize, usize)>) {
    let mut text = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut begin = None;
    for c in marked.chars() {
        match c {
            BEGIN => begin = Some(text.len()),
            END => spans.extend(begin.take().map(|begin| (begin, text.len()))),
            c => text.push(c),
        }
    }
    (text, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrite_keeps_white_space_control() {
        let rewritten = rewrite("a{%- generation -%}b{% endgeneration%}c{%+ if x %}").unwrap();
        assert_eq!(rewritten, "a{%- filter __temper_generation -%}b{% endfilter %}c{%+ if x %}");
    }

    #[test]
    fn rewrite_without_tags_is_none() {
        assert_eq!(rewrite("{% if generation %}{% generations %}{% endif %}{% open"), None);
    }

    #[test]
    fn split_takes_the_marks_out() {
        let (text, spans) = split("né\u{fdd0}yes\u{fdd1}.\u{fdd0}\u{fdd1}");
        assert_eq!((text.as_str(), spans), ("néyes.", vec![(3, 6), (7, 7)]));
    }
}
