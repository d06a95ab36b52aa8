//! The query of a URL, decoded. PURE.

use std::str::FromStr;

use super::status::Refusal;

/// Names and values in their order; of a name given twice the first counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Result<Query, Refusal> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        });
        pairs.collect::<Result<_, _>>().map(Query)
    }

    /// The value, where there is one that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value as a number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let wrong = |value: &str| Refusal::bad_request(format!("{name}={value} is not a number"));
        self.get(name).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
    }

    /// The value as a switch: `None` when it is not given.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(value) => {
                Err(Refusal::bad_request(format!("{name}={value} is neither true nor false")))
            }
        }
    }
}

/// Undoes percent-encoding.
pub(crate) fn decode(text: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::bad_request(format!("\"{text}\" is not well percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) = hex(digits[0]).zip(hex(digits[1])).ok_or_else(wrong)?;
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query =
            Query::parse("&labelSelector=app%3Dweb%2Cx+in+%28a%29&watch=true&limit=5&e=").unwrap();
        assert_eq!(query.get("labelSelector"), Some("app=web,x in (a)"));
        assert_eq!(query.switch("watch").unwrap(), Some(true));
        assert_eq!(query.number::<usize>("limit").unwrap(), Some(5));
        assert_eq!(query.get("e"), None);
        assert_eq!(query.switch("nothing").unwrap(), None);
        for raw in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(raw).is_err(), "{raw}");
        }
        assert!(query.switch("limit").is_err());
        assert!(query.number::<u32>("watch").is_err());
    }
}
