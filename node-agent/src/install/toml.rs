//! PURE. As much of TOML as container runtimes' configurations need: texts and lists of texts
//! by their full key. Other values are passed over; a file that is broken somewhere gives what
//! stands before.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Values by their full key, as `plugins`, `io.containerd.grpc.v1.cri`, `cni`, `conf_dir`.
/// One text is a list of one.
pub(super) type Texts = BTreeMap<Vec<String>, Vec<String>>;

/// Deeper than any configuration is.
const DEEPEST: usize = 32;

/// Reads a file's text.
#[must_use]
pub(super) fn texts(text: &str) -> Texts {
    let mut reader = Reader { rest: text.chars().peekable(), texts: Texts::new() };
    // What is broken ends the reading; the runtime tells about it.
    let _ = reader.file();
    reader.texts
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    texts: Texts,
}

impl Reader<'_> {
    fn file(&mut self) -> Option<()> {
        let mut table = Vec::new();
        loop {
            self.skip_lines();
            match self.rest.peek()? {
                '[' => table = self.header()?,
                _ => self.pair(&table, DEEPEST)?,
            }
        }
    }

    /// `[a.b]`, or `[[a.b]]`, whose elements are taken for one.
    fn header(&mut self) -> Option<Vec<String>> {
        while self.take('[') {}
        let key = self.key()?;
        self.skip_blanks();
        while self.take(']') {}
        Some(key)
    }

    fn pair(&mut self, table: &[String], depth: usize) -> Option<()> {
        let mut key = table.to_vec();
        key.extend(self.key()?);
        self.skip_blanks();
        self.take('=').then_some(())?;
        self.skip_blanks();
        let values = self.value(&key, depth.checked_sub(1)?)?;
        if !values.is_empty() {
            self.texts.insert(key, values);
        }
        Some(())
    }

    fn key(&mut self) -> Option<Vec<String>> {
        let mut key = Vec::new();
        loop {
            self.skip_blanks();
            key.push(match self.rest.peek()? {
                '"' | '\'' => self.text()?,
                _ => self.bare(),
            });
            self.skip_blanks();
            if !self.take('.') {
                // An empty bare key is none: what stands there is no TOML.
                return key.iter().all(|part| !part.is_empty()).then_some(key);
            }
        }
    }

    fn bare(&mut self) -> String {
        let mut bare = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)) {
            bare.push(c);
        }
        bare
    }

    fn value(&mut self, key: &[String], depth: usize) -> Option<Vec<String>> {
        match self.rest.peek()? {
            '"' | '\'' => Some(vec![self.text()?]),
            '[' => self.list(key, depth.checked_sub(1)?),
            '{' => self.inline_table(key, depth.checked_sub(1)?),
            _ => {
                // Numbers, truth, dates.
                let other = |c: &char| !",]}#\n".contains(*c);
                while self.rest.next_if(other).is_some() {}
                Some(Vec::new())
            }
        }
    }

    fn list(&mut self, key: &[String], depth: usize) -> Option<Vec<String>> {
        self.take('[');
        let mut values = Vec::new();
        loop {
            self.skip_lines();
            if self.take(']') {
                return Some(values);
            }
            values.extend(self.value(key, depth)?);
            self.skip_lines();
            if !self.take(',') && self.rest.peek() != Some(&']') {
                return None;
            }
        }
    }

    fn inline_table(&mut self, table: &[String], depth: usize) -> Option<Vec<String>> {
        self.take('{');
        loop {
            self.skip_lines();
            if self.take('}') {
                return Some(Vec::new());
            }
            self.pair(table, depth)?;
            self.skip_lines();
            if !self.take(',') && self.rest.peek() != Some(&'}') {
                return None;
            }
        }
    }

    /// In quotes of either kind, one or three.
    fn text(&mut self) -> Option<String> {
        let quote = self.rest.next()?;
        let mut quotes = 1;
        while quotes < 3 && self.take(quote) {
            quotes += 1;
        }
        if quotes == 2 {
            return Some(String::new());
        }
        let mut text = String::new();
        let mut ending = 0;
        while ending < quotes {
            let c = self.rest.next()?;
            match c {
                '\\' if quote == '"' => text.push(self.escaped()?),
                '\n' if quotes == 1 => return None,
                _ => text.push(c),
            }
            ending = if c == quote { ending + 1 } else { 0 };
        }
        text.truncate(text.len() - quotes);
        Some(text)
    }

    fn escaped(&mut self) -> Option<char> {
        let digits = match self.rest.next()? {
            'n' => return Some('\n'),
            't' => return Some('\t'),
            'r' => return Some('\r'),
            'u' => 4,
            'U' => 8,
            other => return Some(other),
        };
        let mut code = 0;
        for _ in 0..digits {
            code = code * 16 + self.rest.next()?.to_digit(16)?;
        }
        char::from_u32(code)
    }

    fn take(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| " \t\r".contains(*c)).is_some() {}
    }

    /// Blanks, ends of lines, and comments.
    fn skip_lines(&mut self) {
        loop {
            while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
            if !self.take('#') {
                return;
            }
            while self.rest.next_if(|c| *c != '\n').is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, String)> {
        let texts = texts(text).into_iter();
        texts.map(|(key, values)| (key.join("|"), values.join("|"))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn texts_and_lists_are_found_by_their_full_key() {
        let cases: [(&str, &[(&str, &str)]); 14] = [
            ("a = \"x\"", &[("a", "x")]),
            ("a = 'x\\y' # it", &[("a", "x\\y")]),
            ("[t]\na=\"x\"\n[u]\na=\"y\"", &[("t|a", "x"), ("u|a", "y")]),
            ("[p.\"i.o/c.r\".'cni']\na = \"x\"", &[("p|i.o/c.r|cni|a", "x")]),
            ("[t]\nb.\"c.d\" . e = \"x\"", &[("t|b|c.d|e", "x")]),
            ("a = [\"x\", 'y',]", &[("a", "x|y")]),
            ("a = [ # dirs\n \"x\",\n\n \"y#\" # last\n]\nb=\"z\"", &[("a", "x|y#"), ("b", "z")]),
            ("a = { b = \"x\", c = [\"y\"] }", &[("a|b", "x"), ("a|c", "y")]),
            ("n = 1e3\nt = true\nd = 2020-01-01\na = \"x\"", &[("a", "x")]),
            ("a = \"\"\"\nx \"q\"\n[t]\"\"\"\nb = \"y\"", &[("a", "\nx \"q\"\n[t]"), ("b", "y")]),
            ("a = \"q\\\"u\\u00e9\\\\\"", &[("a", "q\"ué\\")]),
            ("[[m]]\na=\"x\"\n[[m]]\na=\"y\"", &[("m|a", "y")]),
            ("a = \"\"\nb = ''", &[("a", ""), ("b", "")]),
            ("a = \"x\"\r\nb = \"y\"\r\n", &[("a", "x"), ("b", "y")]),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn what_is_broken_ends_the_reading_and_nothing_else() {
        for broken in ["b = ", "b = \"y", "= \"y\"", "b \"y\"", "b = [\"y\" \"z\"]", "[t\n!", "{"] {
            let found = shown(&format!("a = \"x\"\n{broken}"));
            assert_eq!(found[0], ("a".into(), "x".into()), "{broken}");
        }
        let deep = format!("a = \"x\"\nb = {}", "[".repeat(100_000));
        assert_eq!(shown(&deep), pairs(&[("a", "x")]), "no stack is deep enough for that");
        let deep = format!("a = \"x\"\nb = {}", "{c=".repeat(100_000));
        assert_eq!(shown(&deep), pairs(&[("a", "x")]));
    }
}
