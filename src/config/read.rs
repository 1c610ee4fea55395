//! From the file's text to the tables as written, every error in words of the file's own and
//! **without a byte of any value**: what stands at the wrong place, or in a broken string, may be a
//! secret. So nothing of a parser's message is passed on but what is found in a list of known
//! words, and of the text only keys that are bare words.

use std::ops::Range;
use std::path::Path;

use serde::de::{self, DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::{DeTable, DeValue};

use super::place::{File, Result};
use super::raw;

/// Reads the tables of an inventory.
pub(super) fn tables(path: &Path, text: &str) -> Result<raw::Inventory> {
    let file = File::new(path, text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            return file.wrong(&span, "this is not TOML", syntax(error.message()));
        }
    };
    let document = document.get_ref();
    unknown_keys(&file, document)?;
    toml::from_str(text).or_else(|error| {
        let span = error.span().unwrap_or(0..0);
        let key = key_at(document, &span).unwrap_or_else(|| "inventory".into());
        file.wrong(&span, &key, expected(error.message()))
    })
}

/// What a syntax error may be, by words that the parser has and no file.
fn syntax(message: &str) -> &'static str {
    let known = [
        ("duplicate key", "the same key or table stands twice"),
        ("quoted", "a text stands in quotes: \"…\""),
        (
            "string",
            "a text in quotes has no end, or an escape that there is not",
        ),
        ("newline", "a key and its value stand alone on their line"),
        ("key", "a line is KEY = VALUE, or a table's [NAME]"),
        ("array", "a list is [\"…\", \"…\"]"),
        (
            "table",
            "a table is { KEY = VALUE }, or [NAME] on a line of its own",
        ),
        (
            "number",
            "a number is digits alone; other values stand in quotes",
        ),
        (
            "integer",
            "a number is digits alone, and not beyond 64 bits",
        ),
    ];
    let found = known.iter().find(|(word, _)| message.contains(word));
    found.map_or(
        "a line is KEY = VALUE, or a table's [NAME]; texts stand in quotes",
        |(_, words)| words,
    )
}

/// What should stand there, from the last words of serde's message, which are of the type and never
/// of the value.
fn expected(message: &str) -> &'static str {
    let type_name = message
        .rsplit_once("expected ")
        .map_or("", |(_, name)| name);
    if message.contains("untagged enum RecipientFrom") {
        return "must be a list of public keys: [\"age1…\", { file = \"recipients.txt\" }]";
    }
    if message.contains("untagged enum Size") {
        return "must be a size, such as \"512MiB\" or \"40GB\", or a number of bytes";
    }
    match type_name.trim() {
        "u16" => "must be a whole number from 1 to 65535",
        "u32" | "u64" | "usize" => "must be a whole number, not negative and not huge",
        "i32" | "i64" => "must be a whole number, and not a huge one",
        "a string" | "path string" => "must be a text in quotes: \"…\"",
        "a boolean" => "must be true or false, without quotes",
        "a sequence" => "must be a list of texts: [\"…\", \"…\"]",
        "a map" => "must be a table: { NAME = … }, with a secret's place for each NAME",
        name if name.starts_with("struct ") => "must be a table: [NAME], with keys below it",
        _ if message.starts_with("missing field `url`") => {
            "url is missing; add url = \"s3://BUCKET/PREFIX\" or \"file:///FOLDER\""
        }
        _ => "another kind of value must stand here; `tapline init -` shows each key",
    }
}

/// Every key must be one of those that its table knows.
fn unknown_keys(file: &File, document: &DeTable) -> Result<()> {
    known(file, document, "", fields::<raw::Inventory>())?;
    for (name, table) in document {
        let name = name.get_ref().as_ref();
        let DeValue::Table(table) = table.get_ref() else {
            continue;
        };
        let (one, each) = match name {
            "run" => (Some(fields::<raw::Run>()), None),
            "staged" => (Some(fields::<raw::Staged>()), None),
            "signatures" => (Some(fields::<raw::Signatures>()), None),
            "notify" => (Some(fields::<raw::Notify>()), None),
            "hooks" => (Some(fields::<raw::Hooks>()), None),
            "serve" => (Some(fields::<raw::Serve>()), None),
            "defaults" => (Some(fields::<raw::Database>()), None),
            "stores" => (None, Some(fields::<raw::Store>())),
            "databases" => (None, Some(fields::<raw::Database>())),
            _ => (None, None),
        };
        if let Some(keys) = one {
            known(file, table, name, keys)?;
        }
        if let ("notify", Some(email)) = (name, table.get("email"))
            && let DeValue::Table(email) = email.get_ref()
        {
            known(file, email, "notify.email", fields::<raw::Mail>())?;
        }
        for (inner, table) in each.iter().flat_map(|_| table) {
            if let (DeValue::Table(table), Some(keys)) = (table.get_ref(), each) {
                known(file, table, &format!("{name}.{}", inner.get_ref()), keys)?;
            }
        }
    }
    Ok(())
}

fn known(file: &File, table: &DeTable, path: &str, keys: &[&str]) -> Result<()> {
    let stranger = table
        .keys()
        .find(|key| !keys.contains(&key.get_ref().as_ref()));
    let Some(stranger) = stranger else {
        return Ok(());
    };
    let name: &str = stranger.get_ref().as_ref();
    // A quoted key may be anything, even what belongs into a value.
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let shown = if name.len() <= 40 && name.chars().all(is_bare) {
        name
    } else {
        "a key"
    };
    let key = if path.is_empty() {
        shown.to_owned()
    } else {
        format!("{path}.{shown}")
    };
    let why = match closest(name, keys) {
        Some(meant) => format!("there is no such key; did you mean `{meant}`?"),
        None => "there is no such key; `tapline init -` shows all".to_owned(),
    };
    file.wrong(&stranger.span(), &key, why)
}

/// The key that somebody may have meant: a slip of two letters, or a part of it.
pub(super) fn closest<'a>(name: &str, keys: &[&'a str]) -> Option<&'a str> {
    let likeness = |key: &&str| strsim::damerau_levenshtein(name, key);
    let nearest = keys.iter().copied().min_by_key(likeness)?;
    (likeness(&nearest) <= 2.max(name.len() / 4)).then_some(nearest)
}

/// The path of the key in whose value `span` begins.
fn key_at(table: &DeTable, span: &Range<usize>) -> Option<String> {
    let holds = |range: Range<usize>| range.start <= span.start && span.start < range.end.max(1);
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        let inner = match value.get_ref() {
            DeValue::Table(table) => key_at(table, span).map(|inner| format!("{name}.{inner}")),
            _ => None,
        };
        inner.or_else(|| (holds(value.span()) || holds(key.span())).then(|| name.to_string()))
    })
}

/// The keys that a table knows, as `raw` declares them: one list, which cannot fall behind.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It ends in an error always, since there is nothing to deserialise.
    let _ = T::deserialize(FieldNames(&mut fields));
    fields
}

/// Asked for a struct, it notes the names of its fields.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> de::Deserializer<'de> for FieldNames<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> std::result::Result<V::Value, Self::Error> {
        Err(de::Error::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only its fields were asked for"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_table_are_those_of_its_struct() {
        assert_eq!(
            fields::<raw::Inventory>(),
            [
                "run",
                "staged",
                "notify",
                "signatures",
                "hooks",
                "serve",
                "stores",
                "defaults",
                "databases"
            ]
        );
        assert!(fields::<raw::Database>().contains(&"keep_within"));
    }

    #[test]
    fn a_slip_is_guessed_and_a_stranger_is_not() {
        let keys = fields::<raw::Database>();
        assert_eq!(closest("passwrod", keys), Some("password"));
        assert_eq!(closest("keep_dayly", keys), Some("keep_daily"));
        assert_eq!(closest("colour", keys), None);
    }
}
