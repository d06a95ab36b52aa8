//! Rust source as a list of words: comments, strings and numbers are dropped, because a
//! comment that names a crate does not use it.

/// One word, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, `::`, or one other character.
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// Splits source text. Text that is no Rust gives some list, never a panic.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, found: Vec::new() };
    while let Some(next) = lexer.rest.chars().next() {
        lexer.step(next);
    }
    lexer.found
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self, next: char) {
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some(length) = string(self.rest) {
            self.skip(length);
        } else if next == '\'' {
            self.skip(character_or_lifetime(self.rest));
        } else if self.rest.starts_with("::") {
            self.take(2);
        } else if next.is_alphanumeric() || next == '_' {
            let length = word(self.rest);
            if next.is_numeric() {
                self.skip(length);
            } else {
                self.take(length);
            }
        } else if next.is_whitespace() {
            self.skip(next.len_utf8());
        } else {
            self.take(next.len_utf8());
        }
    }

    fn take(&mut self, length: usize) {
        let text = self.rest[..length].to_owned();
        self.found.push(Token { text, line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of the string literal that `text` begins with, of any kind.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            let is_raw = prefix.ends_with('r');
            rest.starts_with('"') || (is_raw && rest.trim_start_matches('#').starts_with('"'))
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let content = &body[hashes + 1..];
        let length = content.find(&end).map_or(content.len(), |at| at + end.len());
        return Some(prefix.len() + hashes + 1 + length);
    }
    Some(prefix.len() + 1 + until_unescaped(&body[1..], '"'))
}

fn until_unescaped(text: &str, end: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == end => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut after = text[1..].chars();
    match (after.next(), after.next()) {
        (Some('\\'), _) => 1 + until_unescaped(&text[1..], '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1 + word(&text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn only_code_is_left() {
        for (source, expected) in [
            ("use kube::Api; // tokio::x", vec!["use", "kube", "::", "Api", ";"]),
            ("a /* b /* c */ d */ e", vec!["a", "e"]),
            (r#"f("tokio::x \" y", 7_u8)"#, vec!["f", "(", ",", ")"]),
            (r###"f(r#"a " b"#, br"c", b"d\"e", x)"###, vec!["f", "(", ",", ",", ",", "x", ")"]),
            (r"m('a', '\'', '\\', 'é', b'x')", vec!["m", "(", ",", ",", ",", ",", "b", ")"]),
            ("fn f<'a>(x: &'a str)", vec!["fn", "f", "<", ">", "(", "x", ":", "&", "str", ")"]),
            ("r#type 0x1f bar", vec!["r", "#", "type", "bar"]),
        ] {
            assert_eq!(words(source), expected, "{source}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("/* \n */ \"\n\" a\nb");
        assert_eq!(found.iter().map(|token| token.line).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn garbage_ends() {
        for source in ["\"", "r#\"", "/*", "'", "'\\", "\u{1F600}'", "b", "r##"] {
            tokens(source);
        }
    }
}
