//! Text inside of HTML, SVG and XML.

use std::fmt::{self, Write};

/// Displays text so that it is text in an element and in a quoted attribute.
///
/// Characters that XML 1.0 does not have become U+FFFD.
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
                '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                control if control.is_control() => f.write_char('\u{fffd}')?,
                letter => f.write_char(letter)?,
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
        }
    }
}
