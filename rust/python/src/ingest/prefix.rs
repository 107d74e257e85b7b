//! The prefix of a key, as `dask.utils.key_split` gives it.

use std::borrow::Cow;

/// The prefix of a key that is a string, e.g. `sum-partial` of `sum-partial-2d29…`; `None` if only Dask can tell.
///
/// Anything but ASCII is left to Dask, because its notion of a letter is Python's.
pub(super) fn of_text(text: &str) -> Option<Cow<'_, str>> {
    if !text.is_ascii() {
        return None;
    }
    let first = text.split('-').next().unwrap_or_default();
    let Some(initial) = first.bytes().next() else {
        return Some(Cow::Borrowed("Other"));
    };
    let mut end = first.len();
    for word in text[end..].split('-').skip(1) {
        let hex = word.len() == 8 && matches!(word.as_bytes()[0], b'a'..=b'f');
        if word.is_empty() || hex || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            break;
        }
        end += 1 + word.len();
    }
    let prefix = if initial.is_ascii_alphabetic() {
        Cow::Borrowed(&text[..end])
    } else {
        let head = first.split(',').next().unwrap_or_default().trim_matches(['_', '\'', '(', ')', '"']);
        Cow::Owned([head, &text[first.len()..end]].concat())
    };
    if prefix.len() == 32 && prefix.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9')) {
        return Some(Cow::Borrowed("data"));
    }
    match prefix.bytes().next() {
        None => Some(Cow::Borrowed("Other")),
        Some(b'<') => None,
        Some(_) => Some(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::of_text;

    #[test]
    fn as_dask_does() {
        // From the doctests of `dask.utils.key_split`, and more of the kind.
        let cases = [
            ("x", "x"),
            ("x-1", "x"),
            ("x-1-2-3", "x"),
            ("('x-2', 1)", "x"),
            ("('x', 1)", "x"),
            ("hello-world-1", "hello-world"),
            ("ae05086432ca935f6eba409a8ecd4896", "data"),
            ("x-abcdefab", "x"),
            ("x-abcdefgh", "x"),
            ("x-zbcdefgh-a", "x-zbcdefgh-a"),
            ("_(x)", "x"),
            ("", "Other"),
            ("-x", "Other"),
            ("()", "Other"),
            ("sum-partial-2d293fa4d08abbf94f7f880df7d92d92", "sum-partial"),
        ];
        for (key, prefix) in cases {
            assert_eq!(of_text(key).as_deref(), Some(prefix), "{key}");
        }
        assert_eq!(of_text("<module.submodule.myclass object at 0xdaf372>"), None);
        assert_eq!(of_text("größe-1"), None);
    }
}
