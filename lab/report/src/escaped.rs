//! Escapes text for HTML, SVG and XML.

use std::fmt::{self, Write};

use faultlab_base::text::is_plain;

/// Displays text escaped for an element or a quoted attribute.
///
/// Characters that XML 1.0 forbids, and invisible or misleading ones, become
/// U+FFFD.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(letter)?,
                letter if is_plain(letter) => f.write_char(letter)?,
                _ => f.write_char('\u{fffd}')?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(
            Escaped("<script>\"a\" & 'b'\u{1b}[0m").to_string(),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}[0m"
        );
    }

    proptest! {
        #[test]
        fn nothing_opens_a_tag_or_ends_an_attribute(text: String) {
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(escaped.chars().all(|c| c == '\n' || c == '\t' || is_plain(c)));
        }
    }
}
