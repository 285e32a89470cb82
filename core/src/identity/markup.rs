//! The address inside a pasted embed code.

use super::text::{strip_prefix_ignore_case, trim};

/// The value of `src` of the first `<iframe` in `markup`: any case, any quotes or none, never `data-src`.
/// `None` when there is no iframe or its first one has no source.
pub(super) fn iframe_source(markup: &str) -> Option<&str> {
    let attributes = first_iframe(markup)?;
    let mut rest = attributes;
    loop {
        let (name, value, after) = next_attribute(rest)?;
        if name.eq_ignore_ascii_case("src") {
            return value.map(trim).filter(|source| !source.is_empty());
        }
        rest = after;
    }
}

/// What follows the tag name of the first iframe.
fn first_iframe(markup: &str) -> Option<&str> {
    markup.match_indices('<').find_map(|(at, _)| {
        let rest = strip_prefix_ignore_case(&markup[at..], "<iframe")?;
        // `<iframes` is another tag
        rest.starts_with(|c: char| is_blank(c) || c == '/' || c == '>')
            .then_some(rest)
    })
}

/// The blanks of HTML.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// The next attribute: its name, its value when it has one, and the text after it. `None` at the end of the tag.
fn next_attribute(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let text = text.trim_start_matches(|c: char| is_blank(c) || c == '/');
    if text.is_empty() || text.starts_with('>') {
        return None;
    }
    // A name may begin with `=`, as in HTML: taking at least one character means that every step moves on.
    let first = text.chars().next().map_or(0, char::len_utf8);
    let ends_name = |c: char| is_blank(c) || matches!(c, '=' | '>' | '/');
    let end = text[first..].find(ends_name).map_or(text.len(), |at| first + at);
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.trim_start_matches(is_blank).strip_prefix('=') else {
        return Some((name, None, rest));
    };
    let value = value.trim_start_matches(is_blank);
    for quote in ['"', '\''] {
        if let Some(quoted) = value.strip_prefix(quote) {
            let (inside, after) = quoted.split_once(quote)?;
            return Some((name, Some(inside), after));
        }
    }
    let end = value.find(|c: char| is_blank(c) || c == '>').unwrap_or(value.len());
    Some((name, Some(&value[..end]), &value[end..]))
}

#[cfg(test)]
mod tests {
    use super::iframe_source;

    #[test]
    fn finds_the_source_in_any_spelling() {
        for markup in [
            "<iframe src=\"u\"></iframe>",
            "<IFRAME SRC='u'>",
            "<iframe\nSrc = u allowfullscreen>",
            "<p><iframe data-src=\"x\" src=\"u\">",
            "<iframe title=\"a src='x' b\" src=u>",
            "<iframe allowfullscreen src=\" u \" />",
            "<iframes src=x></iframes><iframe/src=u>",
        ] {
            assert_eq!(iframe_source(markup), Some("u"), "{markup}");
        }
    }

    #[test]
    fn has_no_source_without_one_in_the_first_iframe() {
        for markup in [
            "<iframe data-src=\"x\">",
            "<video src=x>",
            "<iframe><iframe src=u>",
            "<iframe src>",
            "<iframe src=\"u",
            "<",
        ] {
            assert_eq!(iframe_source(markup), None, "{markup}");
        }
    }
}
