//! The character set of the terminal, by the locale: setlocale(3), locale(7).

use std::borrow::Cow;
use std::env;
use std::sync::OnceLock;

static UTF8: OnceLock<bool> = OnceLock::new();

/// Whether the locale's character set is UTF-8. If none of LC_ALL, LC_CTYPE and LANG
/// is set, as in a guest, the locale is C.
#[must_use]
pub fn is_utf8() -> bool {
    *UTF8.get_or_init(|| {
        let variables = ["LC_ALL", "LC_CTYPE", "LANG"];
        names_utf8(variables.map(|name| env::var(name).unwrap_or_default()))
    })
}

/// Whether the first non-empty value names UTF-8.
fn names_utf8(values: [String; 3]) -> bool {
    let named = values.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    let named = named.to_ascii_lowercase();
    named.ends_with("utf-8") || named.ends_with("utf8")
}

/// The text, with box-drawing characters replaced by ASCII unless the locale is UTF-8.
/// Each is replaced by one character, so columns stay aligned.
#[must_use]
pub fn drawn(text: &str) -> Cow<'_, str> {
    if is_utf8() { text.into() } else { in_ascii(text) }
}

fn in_ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return text.into();
    }
    let letter = |letter| match letter {
        '─' => '-',
        '═' => '=',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' => '+',
        other => other,
    };
    text.chars().map(letter).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_names_the_character_set() {
        let utf8 = |values: [&str; 3]| names_utf8(values.map(str::to_owned));
        assert!(utf8(["", "", "C.UTF-8"]));
        assert!(utf8(["", "de_DE.utf8", "C"]));
        assert!(!utf8(["C", "de_DE.utf8", "C.UTF-8"]));
        assert!(!utf8(["", "", ""]));
    }

    #[test]
    fn lines_and_boxes_become_ascii() {
        assert_eq!(in_ascii("┌─┐\n│x│\n└═┘ Grüße"), "+-+\n|x|\n+=+ Grüße");
    }
}
